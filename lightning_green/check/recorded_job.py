"""The job of a run as its scheduler has recorded it, for a new plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_green.ledger.account import FitAccounts
from lightning_green.ledger.events import Decision, Event, Finished, Paused, Started, StateEvent
from lightning_green.ledger.history import read_history
from lightning_green.planning import Job

NOT_STARTED = "not started"


class NoJobError(ValueError):
    """A run has no recorded job."""


@dataclass(frozen=True)
class RecordedJob:
    """A job and the grid signal that it is planned with.

    Args:
        job: The job.
        grid: Spec of the grid signal; None if it cannot be built again, such as a function of the script.
        state: State of the run: ``"not started"``, ``"running"``, ``"paused"``, ``"interrupted"``, ``"failed"`` or
            ``"finished"``. The job of a finished run is the whole training, with a deadline as far away as at its
            start.

    """

    job: Job
    grid: Mapping[str, Any] | None
    state: str


def read_recorded_job(run_dir: Path, now: datetime) -> RecordedJob:
    """Return the job of a run: its remaining work, or all of it if the run has finished.

    In a run of several fits it is the job of the fit that has decided last.

    Args:
        run_dir: Run directory.
        now: Current time, aware.

    Raises:
        NoJobError: If no scheduler has recorded a job, or it is damaged. The message contains why no plan was made.
        OSError: If a ledger cannot be read.

    """
    first: dict[int, Decision] = {}
    last: dict[int, Decision | Paused] = {}
    work: dict[int, float] = {}
    newest: Decision | None = None

    def visit(event: Event, accounts: FitAccounts) -> None:
        nonlocal newest
        fit = event.fit or 0
        if isinstance(event, Decision):
            newest = event
            if event.job is not None:
                first.setdefault(fit, event)
            if event.work_hours is not None:
                work[fit] = event.work_hours
        if isinstance(event, (Decision, Paused)) and event.job is not None:
            last[fit] = event

    states = read_history(run_dir, visit=visit).states
    if not last:
        raise NoJobError(_why_no_job(newest, states))
    fit = max(last, key=lambda number: last[number].time)
    state = states.get(fit)
    is_finished = isinstance(state, Finished)
    source = first.get(fit, last[fit]) if is_finished else last[fit]
    try:
        job = Job.from_json(source.job or {}, "running")
        if is_finished:
            if job.deadline is not None:
                job = replace(job, deadline=now + (job.deadline - source.time))
        else:
            job = replace(job, work_hours=work.get(fit, job.work_hours), state="out" if _is_out(state) else "running")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise NoJobError(f"the recorded job is damaged ({error})") from error
    return RecordedJob(job, source.grid, _name(state))


def _why_no_job(newest: Decision | None, states: Mapping[int, StateEvent]) -> str:
    if newest is not None and newest.reason:
        return newest.reason.removeprefix("Run without waiting: ").rstrip(".")
    if not states:
        return "no training has started"
    return "no CarbonScheduler has made a plan; add it to the callbacks, with a `grid` and a `deadline`"


def _is_out(state: StateEvent | None) -> bool:
    return not isinstance(state, (Started, type(None)))


def _name(state: StateEvent | None) -> str:
    return "running" if state is None or isinstance(state, Started) else state.name
