"""Compare the built-in typical day of a country with measured years of its zones.

    python benchmarks/typical_day.py --data DIR --json

For each `<zone>_<year>.csv` in DIR:

- `bias_pct`: mean of the typical day minus the mean of the year. The annual means are those of other years.
- `error_pct`: mean absolute error of an hour, in percent of the mean of the year. `constant_error_pct`: the same for
  the true mean of the year as a constant, which no source knows in advance.
- `shape_correlation`: correlation of the two average days, hour by hour.
- `saving_pct`: what a job of 8 h with a deadline after 36 h saves if it is planned with the typical day and emits by
  the measured hours; mean over starts every 25 h. `best_saving_pct`: the same, planned with the measured hours.
"""

from __future__ import annotations

import csv
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from carbon_data import parse_arguments

from lightning_green.grid.providers.typical_day import TypicalDay
from lightning_green.planning import Forecast, Job, plan

WORK, DEADLINE, EVERY = 8.0, timedelta(hours=36), 25
HOUR = timedelta(hours=1)


def read(path: Path) -> tuple[datetime, np.ndarray]:
    """Return the first hour of a trace and its hourly values; an empty value is NaN."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    first = datetime.fromisoformat(rows[0]["datetime"].replace("Z", "+00:00")).astimezone(timezone.utc)
    values = {row["datetime"]: float(row["carbon_intensity"] or "nan") for row in rows}
    hours = [f"{first + index * HOUR:%Y-%m-%dT%H:%M:%SZ}" for index in range(len(rows))]
    return first, np.array([values.get(hour, np.nan) for hour in hours])


def emitted(job: Job, forecast: Forecast, now: datetime, first: datetime, actual: np.ndarray) -> float:
    """Return the emissions in gCO2e per kW of a plan, at the measured intensities."""
    total, is_out = 0.0, False
    for slot in plan(job, forecast, now).slots:
        power = job.hold_power if slot.action == "hold" else 0.0 if slot.level is None else slot.level.power
        start, end = (slot.start - first) / HOUR, (slot.end - first) / HOUR
        edges = np.append(np.arange(np.floor(start), end), end)
        edges[0] = start
        values = actual[np.floor(edges[:-1]).astype(int)]
        if is_out and slot.action != "exit":
            total += job.resume_cost * values[0]
        is_out = slot.action == "exit"
        total += power * float(np.diff(edges) @ values)
    return total


def savings(signal: TypicalDay, first: datetime, actual: np.ndarray) -> tuple[float, float, int]:
    """Return the mean saving in percent of plans with the typical day and with the measured hours, and their number."""
    sums, count = np.zeros(3), 0
    for index in range(0, len(actual) - 40, EVERY):
        now = first + index * HOUR
        future = actual[index : index + 40]
        if np.isnan(future).any():
            continue
        job = Job(WORK, deadline=now + DEADLINE, hold_power=0.2, resume_cost=0.1)
        typical = signal.forecast(now, DEADLINE)
        measured = Forecast([now + hour * HOUR for hour in range(36)], future[:36], kind="average/lifecycle")
        sums += [emitted(job, one, now, first, actual) for one in (typical, measured)] + [float(future[:8].sum())]
        count += 1
    typical_sum, best_sum, run_now = sums
    return 100 * (1 - typical_sum / run_now), 100 * (1 - best_sum / run_now), count


def compare(zone: str, path: Path) -> dict[str, float | str | int]:
    """Return the figures of one year."""
    signal = TypicalDay(zone)
    first, actual = read(path)
    times = [first + index * HOUR for index in range(len(actual))]
    typical = np.array([signal.intensity(time).value for time in times])
    known = ~np.isnan(actual)
    mean = actual[known].mean()
    hours = np.array([time.hour for time in times])
    days = [[one[known & (hours == hour)].mean() for hour in range(24)] for one in (typical, actual)]
    saving, best, starts = savings(signal, first, actual)
    return {
        "zone": zone,
        "year": first.year,
        "bias_pct": 100 * (typical[known].mean() / mean - 1),
        "error_pct": 100 * np.abs(typical - actual)[known].mean() / mean,
        "constant_error_pct": 100 * np.abs(mean - actual)[known].mean() / mean,
        "shape_correlation": float(np.corrcoef(*days)[0, 1]),
        "saving_pct": saving,
        "best_saving_pct": best,
        "starts": starts,
    }


def main() -> None:
    paths, as_json = parse_arguments(__doc__, "*_20[0-9][0-9].csv")
    zones = [compare(path.stem.rpartition("_")[0], path) for path in paths]
    for one in zones:
        print("  ".join(f"{value:8.2f}" if isinstance(value, float) else f"{value!s:>13}" for value in one.values()))
    if as_json:
        print(json.dumps({"zones": zones, "n": len(zones)}))


if __name__ == "__main__":
    main()
