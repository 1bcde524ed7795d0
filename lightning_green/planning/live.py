"""A plan from a live grid, made alike by the training and by the supervisor that waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correct import correct
from lightning_green.planning.forecasting.forecast_archive import Issues
from lightning_green.planning.job import Job, Level, State
from lightning_green.planning.plan import Plan
from lightning_green.planning.planner import WAIT_WITHOUT_DEADLINE, plan

SHORTEST = timedelta(hours=1)
RECORDED = ("hold_power", "resume_cost", "min_saving", "delay_price")


class Source(Protocol):
    """What gives forecasts: a :class:`~lightning_green.grid.signal.GridSignal`, or anything with these three."""

    @property
    def zone(self) -> str | None:
        """Grid zone; None where it has none."""

    @property
    def source(self) -> str:
        """A short name."""

    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        """Return what is known at ``now`` about ``now`` to ``now + horizon``, or None."""


def live_plan(source: Source, job: Job, issues: Issues, now: datetime) -> Plan:
    """Return what to do from ``now`` on, by the newest forecast of ``source``, corrected by the ones before it.

    A forecast that says it was issued later than now (the clock of its server is ahead of ours) counts as issued now.

    Args:
        source: Where forecasts come from.
        job: The work left, what pausing costs, and the deadline.
        issues: What the source said so far; the newest forecast is added to it.
        now: The time, aware.

    Raises:
        ValueError: If ``now`` is naive.

    Example::

        issues = Issues(run_folder / ISSUES_FILE)
        answer = live_plan(grid, job, issues, clock.now())
        print(answer.reason)

    """
    longest = timedelta(hours=2 * job.work_hours + WAIT_WITHOUT_DEADLINE)
    ahead = longest if job.deadline is None else job.deadline - now
    forecast = source.forecast(now, max(ahead, SHORTEST))
    if forecast is None:
        return plan(job, None, now)
    if forecast.issued_at is not None and forecast.issued_at > now:
        forecast = replace(forecast, issued_at=now)
    grid = source.zone or source.source
    better = correct(issues.continued(grid, forecast), issues.of(grid, forecast.kind), now)
    issues.add(grid, forecast)
    return plan(job, better, now)


def job_record(job: Job) -> dict[str, Any]:
    """Return what another process needs to plan for ``job``, as JSON takes it; see :func:`job_from_record`.

    Example::

        >>> job_from_record(job_record(Job(3.5, resume_cost=0.2)), "out").resume_cost
        0.2

    """
    return {
        "work_hours": job.work_hours,
        "deadline": None if job.deadline is None else job.deadline.isoformat(),
        "levels": [f"{level.power}:{level.speed}" for level in job.levels],
        "pauses": sorted(job.pauses),
        **{name: getattr(job, name) for name in RECORDED},
    }


def job_from_record(record: Mapping[str, Any], state: State) -> Job:
    """Return the job that :func:`job_record` described, in the state ``state``; what is not said is as in a new job.

    Raises:
        KeyError: If the work is missing.
        ValueError: If a value is out of its range.

    """
    deadline = record.get("deadline")
    levels = record.get("levels") or ["1:1"]
    return Job(
        work_hours=record["work_hours"],
        deadline=None if deadline is None else datetime.fromisoformat(deadline),
        levels=tuple(Level.parse(level) for level in levels),
        pauses=frozenset(record.get("pauses", ("exit", "hold"))),
        state=state,
        **{name: record[name] for name in RECORDED if name in record},
    )
