"""Plan a job without training anything: a forecast and a job in, a plan and its reason out.

python examples/plan_a_job.py
python examples/plan_a_job.py --work-hours 10 --window-hours 30 --hold-only
python examples/plan_a_job.py --actual DE_2021.csv --forecast DE_2021_96h.csv --now 2021-09-14T09:00:00+00:00

Without files the grid is made up: the sun at noon, the demand in the evening, and a forecast that is too low at night.
"""

from __future__ import annotations

import argparse
import math
from datetime import datetime, timedelta, timezone
from itertools import groupby
from pathlib import Path

from lightning_green.backtest.zone_archive import Archive, read_archive
from lightning_green.planning import Forecast, Job, Level, Plan, plan
from lightning_green.planning.forecasting import correct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-hours", type=float, default=8.0)
    parser.add_argument("--window-hours", type=float, default=24.0)
    parser.add_argument("--hold-only", action="store_true", help="the device cannot be given back")
    parser.add_argument("--throttle", action="append", default=[], help='operating point "power:speed"')
    parser.add_argument("--actual", type=Path, help="CSV of hourly intensities")
    parser.add_argument("--forecast", type=Path, help="CSV of the forecasts that were issued for them")
    parser.add_argument("--now", type=datetime.fromisoformat, default=datetime(2024, 5, 29, 18, tzinfo=timezone.utc))
    options = parser.parse_args()
    if options.actual is None:
        newest, earlier = made_up(options.now)
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
    better = correct(newest, earlier, options.now)
    show("As the forecast was published", plan(job, newest, options.now))
    show("Corrected by what earlier ones got wrong", plan(job, better, options.now))


def show(title: str, answer: Plan) -> None:
    """Print a plan, one line for each stretch of the same action."""
    print(f"{title}: {answer.reason}")
    for action, slots in groupby(answer.slots, key=lambda slot: (slot.action, slot.level)):
        stretch = list(slots)
        emitted = math.fsum(slot.gco2e_per_kw or 0.0 for slot in stretch)
        name = action[0] if action[0] != "throttle" else f"at {action[1]}"
        print(f"  {stretch[0].start:%a %H:%M} - {stretch[-1].end:%a %H:%M}  {name:<12} {emitted:7.0f} gCO2e per kW")
    for note in answer.notes:
        print(f"  Note: {note}")
    print()


def made_up(now: datetime) -> tuple[Forecast, list[Forecast]]:
    """Return the newest forecast, with its history, and those of the four weeks before."""

    def true(time: datetime) -> float:
        sun = max(0.0, math.sin((time.hour - 6) / 12 * math.pi))
        return 380.0 - 180.0 * sun + 60.0 * (17 <= time.hour < 22) + 10.0 * math.sin(time.timestamp() / 2e5)

    def issue(day: datetime) -> Forecast:
        times = [day + timedelta(hours=lead) for lead in range(96)]
        known = [now - timedelta(hours=back) for back in range(8 * 24, 0, -1)]
        values = [true(time) - 230.0 * (time.hour < 5) for time in times]
        return Forecast(times, values, issued_at=day, history_times=known, history_values=[true(t) for t in known])

    today = now.replace(hour=0)
    newest, *earlier = (issue(today - timedelta(days=back)) for back in range(29))
    return newest, earlier


def from_files(archive: Archive, now: datetime) -> list[Forecast]:
    """Return the forecasts of the archive that were issued by ``now``, the newest first, with what was known then."""

    def at(hour: int) -> datetime:
        return datetime.fromtimestamp(hour * 3600, timezone.utc)

    hour = int(now.timestamp() // 3600)
    known = range(max(archive.first, hour - 60 * 24), min(hour, archive.end))
    history = [float(archive.actual[place - archive.first]) for place in known]
    past = {"history_times": [at(place) for place in known], "history_values": history}
    issues = [
        Forecast([at(int(issued) + lead) for lead in range(len(said))], said, issued_at=at(int(issued)), **past)
        for issued, said in zip(archive.issued, archive.forecasts, strict=True)
        if issued <= hour
    ]
    return issues[:-30:-1] or [Forecast([], [], **past)]


if __name__ == "__main__":
    main()
