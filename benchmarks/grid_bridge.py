"""Compare substitutes for the present carbon intensity while the newest measured value is some hours old.

    python benchmarks/grid_bridge.py --data DIR --json

Mean absolute error in gCO2e/kWh, over recorded forecasts (issued daily at 00:00 UTC) and measured values, of: the last
value; the forecast of this hour; and the forecast moved by its error at the last value, which is the method of
lightning_green.grid.live.snapshot. DIR contains `<zone>_2021.csv` and `forecasts/<zone>_2021_96h.csv`.
"""

from __future__ import annotations

import csv
import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from carbon_data import parse_arguments

AGES = (1, 2, 3, 4)
METHODS = ("last_value", "forecast", "moved_forecast")


def errors(folder: Path, zone: str) -> dict[int, np.ndarray]:
    """Return the absolute errors of each method, shape ``(n, 3)``, for each age of the last value in hours."""
    with open(folder / f"{zone}_2021.csv", newline="") as file:
        measured = {row["datetime"]: float(row["carbon_intensity"]) for row in csv.DictReader(file)}
    found: dict[int, list[tuple[float, ...]]] = {age: [] for age in AGES}
    with open(folder / "forecasts" / f"{zone}_2021_96h.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] != "lifecycle":
                continue
            issued = datetime.fromisoformat(row["issued_at"].replace("Z", "+00:00"))
            predicted = [float(row[f"h{hour:02d}"]) for hour in range(28)]
            true = [measured.get(f"{issued + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ}") for hour in range(28)]
            for age in AGES:
                for hour in range(age, 28):
                    now, last = true[hour], true[hour - age]
                    if now is None or last is None:
                        continue
                    moved = max(0.0, last + predicted[hour] - predicted[hour - age])
                    found[age].append((abs(last - now), abs(predicted[hour] - now), abs(moved - now)))
    return {age: np.array(rows) for age, rows in found.items()}


def main() -> None:
    paths, as_json = parse_arguments(__doc__, "forecasts/*_2021_96h.csv")
    folder, zones = paths[0].parents[1], [path.name[: -len("_2021_96h.csv")] for path in paths]
    figures: dict[str, object] = {"zones": {}, "moved_is_best": 0, "compared": 0, "n": 0}
    for zone in zones:
        table = {}
        for age, rows in errors(folder, zone).items():
            means = dict(zip(METHODS, rows.mean(axis=0).round(2).tolist(), strict=True))
            table[f"{age}h"] = means
            figures["compared"] += 1
            figures["moved_is_best"] += min(means, key=means.__getitem__) == "moved_forecast"
            figures["n"] += len(rows)
        figures["zones"][zone] = table
        print(zone, table, file=sys.stderr)
    print(json.dumps(figures) if as_json else "")


if __name__ == "__main__":
    main()
