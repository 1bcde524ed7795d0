"""State of a run or of one of its fits, from its last events and its locks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from lightning_green.ledger.events import Decision, Event, Paused, Started, StateChanged
from lightning_green.ledger.ledger import last_state_event
from lightning_green.ledger.release_record import read_release
from lightning_green.ledger.run_directory import RUNS, is_alive
from lightning_green.utilities.durations import format_duration

FINISHED = "finished"
FAILED = "failed"
EXITED = "exited"
HELD = "held"
KILLED = "killed"
INTERRUPTED = "interrupted"
ENDED = "ended"
"""The command ended without a recorded training."""
LATE = timedelta(hours=1)
"""Time after the planned start from which a job that should have started the run is reported as missing."""
NOT_STARTED = "not started"


@dataclass(frozen=True)
class RunState:
    """State of a run, or of one of its fits.

    Args:
        name: ``"not started"``, ``"running"``, ``"throttled"``, ``"held"``, ``"exited"``, ``"killed"``,
            ``"interrupted"``, ``"failed"``, ``"finished"``, or ``"ended"`` for a command without a recorded training.
        step: Optimizer steps done; None if no training was recorded.
        until: End of a pause, if it is planned.
        reason: One sentence for people; may be empty.
        is_supervised: Whether a supervisor is running, which restarts the training.
        remedy: What has to be done before a paused training is started again; empty if it is due at a time.
        restarted_by: What restarts it without a running supervisor, such as ``"SLURM job 7"``, or None.

    """

    name: str
    step: int | None = None
    until: datetime | None = None
    reason: str = ""
    is_supervised: bool = False
    remedy: str = ""
    restarted_by: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing remains to be done."""
        return self.name in (FINISHED, ENDED) and not self.is_supervised

    def is_late(self, now: datetime) -> bool:
        """Return whether another job should have started the run again long ago: it may have been canceled."""
        return self.restarted_by is not None and self.until is not None and now - self.until > LATE

    @property
    def is_settled(self) -> bool:
        """Whether no process is training and no restart is planned."""
        return self.name in (FINISHED, FAILED, INTERRUPTED, KILLED)


def find_state(path: Path, events: Sequence[Event], steps: int, exit_code: int | None = None) -> RunState:
    """Return the state of a run, or of a fit.

    Args:
        path: Run directory.
        events: Last events of the run or of the fit, in order.
        steps: Highest number of optimizer steps.
        exit_code: Exit code of the supervisor of the command; None if it is unknown or the command has not ended.

    """
    events = [event for event in events if not event.node_rank]  # all nodes have the state of rank 0
    last, supervised = last_state_event(events), is_supervised(path)
    if last is None:
        if exit_code is None:
            return RunState(NOT_STARTED, is_supervised=supervised)
        if exit_code == 0:
            return RunState(ENDED, reason="the command ended without a recorded training")
        output = path / "stderr.log"
        return RunState(FAILED, reason=f"the command failed before its first training; its error output is in {output}")
    if isinstance(last, Started):
        return _find_running(path, events, steps, supervised)
    step, by = last.global_step or 0, None if supervised else read_release(path)
    if isinstance(last, Paused) and last.remedy is not None:
        return RunState(EXITED, step, None, last.reason, supervised, last.remedy)
    if isinstance(last, Paused):
        planned = (event.until for event in reversed(events) if isinstance(event, (Decision, Paused)))
        return RunState(
            EXITED, step, next((time for time in planned if time), None), last.reason, supervised, restarted_by=by
        )
    return RunState(last.name, step, None, last.reason, supervised, restarted_by=by)


def _find_running(path: Path, events: Sequence[Event], step: int, supervised: bool) -> RunState:
    """Return the state of a run whose training has started but not ended."""
    if not is_alive(path, "run"):
        return RunState(KILLED, step, is_supervised=supervised)
    state = next((event.state for event in reversed(events) if event.state), "running")
    hold = next((one for one in reversed(events) if isinstance(one, StateChanged) and one.state == HELD), None)
    until = hold.until if state == HELD and hold is not None else None
    return RunState(state, step, until, is_supervised=supervised)


def is_supervised(path: Path) -> bool:
    """Return whether a supervisor is running: of the directory, or of the command that has further runs below it."""
    return is_alive(path, "supervisor") or (path.parent.name == RUNS and is_alive(path.parent.parent, "supervisor"))


def describe_state(state: RunState, now: datetime) -> str:
    """Return a state as text.

    Args:
        state: The state.
        now: Time of the clock of the run.

    """
    name, step = state.name, state.step
    if step is None:
        return state.reason or ("not started yet" if name == NOT_STARTED else name)
    if name == EXITED and state.remedy:
        return f"exited at step {step}: {state.reason} {state.remedy}"
    if name == EXITED and state.until is None:
        return f"exited at step {step}; restart it manually, because the time of its next start is not recorded"
    if name == EXITED and state.until is not None:
        remaining = format_duration((state.until - now).total_seconds())
        note = "" if state.is_supervised else "; no supervisor is waiting, so restart it manually"
        if state.restarted_by is not None:
            note = f"; {state.restarted_by} starts it again"
        if state.is_late(now):
            note = f"; {state.restarted_by} should have started it. Check {_queue(state)}, or rerun the command"
        return f"exited at step {step} until {state.until:%Y-%m-%d %H:%M} UTC, in {remaining}{note}"
    if name == KILLED:
        return f"killed at about step {step}; rerun the same command to continue"
    if name == HELD and state.until is not None:
        return f"held in process at step {step} until {state.until:%Y-%m-%d %H:%M} UTC"
    if name in (FINISHED, FAILED, INTERRUPTED):
        return f"{name} at step {step}" + (f": {state.reason}" if state.reason else "")
    return f"{name}, at step {step}"


def describe_next(state: RunState, now: datetime, expected_end: datetime | None = None) -> str:
    """Return what happens next with a run, in a few words; empty if nothing does.

    Args:
        state: The state.
        now: Time of the clock of the run.
        expected_end: Expected end of the training, or None.

    Examples:
        >>> now = datetime.fromisoformat("2024-05-01T11:40:00+00:00")
        >>> describe_next(RunState("exited", 3, datetime.fromisoformat("2024-05-01T13:40:00+00:00"), "", True), now)
        'resumes 13:40 UTC, in 2 h'

    """
    restarts = state.is_supervised or state.restarted_by is not None
    if state.name in (EXITED, HELD) and state.until is not None:
        if state.is_late(now):
            return f"check {state.restarted_by} with {_queue(state)}"
        if state.name == EXITED and not restarts:
            return f"rerun the command, planned for {_time(state.until, now)}"
        return f"resumes {_time(state.until, now)}" if state.until > now else "resumes now"
    if state.name in (FINISHED, ENDED):
        return ""
    if state.remedy:
        return "rerun the command once its budget is raised"
    if state.name in (FAILED, KILLED, INTERRUPTED, EXITED):
        return "restarts soon" if restarts else "rerun the command"
    if state.step is not None and expected_end is not None and expected_end > now:
        return f"ends about {_time(expected_end, now)}"
    return ""


def _queue(state: RunState) -> str:
    """Return the command that shows the jobs of the batch system."""
    return "`kubectl get jobs`" if (state.restarted_by or "").startswith("Kubernetes") else "`squeue`"


def _time(at: datetime, now: datetime) -> str:
    day = "" if at.date() == now.date() else f"{at:%Y-%m-%d} "
    away = (at - now).total_seconds()
    return f"{day}{at:%H:%M} UTC" + (f", in {format_duration(away)}" if away > 0 else "")
