"""Plan a job without training: print the plan for a job and a forecast, before and after the correction.

python examples/plan_a_job.py
python examples/plan_a_job.py --work-hours 10 --window-hours 30 --hold-only
python examples/plan_a_job.py --actual DE_2021.csv --forecast DE_2021_96h.csv --now 2021-09-14T09:00:00+00:00

Without files the grid is synthetic: sun at noon, demand in the evening, and a forecast that is too low at night.
"""

from __future__ import annotations

import argparse
import math
from datetime import datetime, timedelta, timezone
from itertools import groupby
from pathlib import Path

from lightning_green.backtest.zone_archive import ZoneArchive, read_archive
from lightning_green.planning import Forecast, Job, Level, Plan, plan
from lightning_green.planning.forecasting import correct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-hours", type=float, default=8.0)
    parser.add_argument("--window-hours", type=float, default=24.0)
    parser.add_argument("--hold-only", action="store_true", help="the device cannot be released")
    parser.add_argument("--throttle", action="append", default=[], help='operating point "power:speed"')
    parser.add_argument("--actual", type=Path, help="CSV of hourly intensities")
    parser.add_argument("--forecast", type=Path, help="CSV of the forecasts issued for them")
    parser.add_argument("--now", type=datetime.fromisoformat, default=datetime(2024, 5, 29, 18, tzinfo=timezone.utc))
    options = parser.parse_args()
    if options.actual is None:
        newest, earlier = synthetic(options.now)
    else:
        newest, *earlier = from_files(read_archive(options.actual, options.forecast), options.now)

    job = Job(
        work_hours=options.work_hours,
        deadline=options.now + timedelta(hours=options.window_hours),
        levels=(Level(1.0, 1.0), *(Level.parse(text) for text in options.throttle)),
        hold_power=0.2,
        resume_cost=0.1,
        pauses=frozenset({"hold"} if options.hold_only else {"hold", "exit"}),
    )
    corrected = correct(newest, earlier, options.now)
    show("Published forecast", plan(job, newest, options.now))
    show("Corrected forecast", plan(job, corrected, options.now))


def show(title: str, answer: Plan) -> None:
    """Print a plan, one line per sequence of equal actions."""
    print(f"{title}: {answer.reason}")
    for action, slots in groupby(answer.slots, key=lambda slot: (slot.action, slot.level)):
        stretch = list(slots)
        emitted = math.fsum(slot.gco2e_per_kw or 0.0 for slot in stretch)
        name = action[0] if action[0] != "throttle" else f"at {action[1]}"
        print(f"  {stretch[0].start:%a %H:%M} - {stretch[-1].end:%a %H:%M}  {name:<12} {emitted:7.0f} gCO2e per kW")
    for note in answer.notes:
        print(f"  Note: {note}")
    print()


def synthetic(now: datetime) -> tuple[Forecast, list[Forecast]]:
    """Return the newest forecast with its history, and the forecasts of the four weeks before."""

    def actual(time: datetime) -> float:
        sun = max(0.0, math.sin((time.hour - 6) / 12 * math.pi))
        return 380.0 - 180.0 * sun + 60.0 * (17 <= time.hour < 22) + 10.0 * math.sin(time.timestamp() / 2e5)

    def issue(day: datetime) -> Forecast:
        times = [day + timedelta(hours=lead) for lead in range(96)]
        known = [now - timedelta(hours=back) for back in range(8 * 24, 0, -1)]
        values = [actual(time) - 230.0 * (time.hour < 5) for time in times]
        return Forecast(
            times, values, issued_at=day, history_times=known, history_values=[actual(time) for time in known]
        )

    today = now.replace(hour=0)
    newest, *earlier = (issue(today - timedelta(days=back)) for back in range(29))
    return newest, earlier


def from_files(archive: ZoneArchive, now: datetime) -> list[Forecast]:
    """Return the forecasts issued by ``now``, the newest first, with the history known then."""

    def to_time(hour: int) -> datetime:
        return datetime.fromtimestamp(hour * 3600, timezone.utc)

    hour = int(now.timestamp() // 3600)
    known = range(max(archive.first, hour - 60 * 24), min(hour, archive.end))
    history = [float(archive.actual[known_hour - archive.first]) for known_hour in known]
    recorded = {"history_times": [to_time(known_hour) for known_hour in known], "history_values": history}
    issuances = [
        Forecast(
            [to_time(int(issued) + lead) for lead in range(len(values))],
            values,
            issued_at=to_time(int(issued)),
            **recorded,
        )
        for issued, values in zip(archive.issued, archive.forecasts, strict=True)
        if issued <= hour
    ]
    return issuances[:-30:-1] or [Forecast([], [], **recorded)]


if __name__ == "__main__":
    main()
