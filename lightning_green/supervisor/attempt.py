"""One start of a command and its outcome."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from lightning_green.ledger.events import Finished, Paused, Started, StateEvent
from lightning_green.supervisor.child import TRACEBACK_START
from lightning_green.supervisor.command import FitKey, Trainings

_PERMANENT_ERRORS = re.compile(
    r"^(?:\[rank\d+\]: )?"
    r"(ImportError|ModuleNotFoundError|SyntaxError|IndentationError|TabError|[\w.]+\.OtherTrainingError)\b",
    re.MULTILINE,
)


class Outcome(Enum):
    """Outcome of an attempt."""

    FINISHED = "exit code 0, and no training has to be continued"
    PAUSED = "a training has exited until a planned time"
    AWAITING = "a training is paused without a planned time, because its budget is used"
    NOT_CONTINUED = "exit code 0, but an unfinished training was not continued"
    FAILED_AFTERWARDS = "failure after the trainings, which another start would repeat"
    CRASHED = "failure of the command or a training; another start may succeed"


@dataclass(frozen=True)
class Attempt:
    """One start of a command.

    Args:
        code: Exit code; negative for a signal.
        traceback: Last traceback in the error output, the line about a missing script, or an empty string.
        before: State of the trainings before the attempt.
        after: State of the trainings after the attempt.
        name: ``<supervisor session>/<number>``, the value of ``claimed_in`` in ``run.json``.

    """

    code: int
    traceback: str
    before: Trainings
    after: Trainings
    name: str

    @cached_property
    def changed(self) -> dict[FitKey, StateEvent]:
        """Fits that the attempt has trained or restored."""
        return self.after.since(self.before)

    @cached_property
    def broken(self) -> dict[FitKey, StateEvent]:
        """Unfinished fits of the attempt; if it trained nothing, all unfinished fits."""
        return self.after.broken(self.changed or self.after.states)

    @cached_property
    def not_continued(self) -> dict[FitKey, StateEvent]:
        """Fits that the attempt should have continued and did not."""
        return self.after.not_continued(self.changed, self.name)

    @cached_property
    def awaiting(self) -> dict[FitKey, Paused]:
        """Fits of the attempt that are paused without a planned time."""
        return {key: state for key, state in self.after.awaiting.items() if key in self.changed}

    @property
    def outcome(self) -> Outcome:
        """Outcome of the attempt."""
        if any(key in self.changed for key in self.after.paused):
            return Outcome.PAUSED
        if self.awaiting and not self.broken:
            return Outcome.AWAITING
        if self.code == 0 and not self.broken:
            return Outcome.NOT_CONTINUED if self.not_continued else Outcome.FINISHED
        failed = 0 < self.code < 128  # not killed, for example between two fits
        if failed and self.changed and self.after.are_finished and not self.after.are_restored:
            return Outcome.FAILED_AFTERWARDS
        return Outcome.CRASHED

    @property
    def reason(self) -> str:
        """Description of the failure for messages."""
        last = newest(self.broken or self.changed)
        if last is None or not self.changed:
            return "the process died before training started"
        if isinstance(last, Finished):
            return f"the training finished; the script then ended with {self.ending}"
        if isinstance(last, Started):
            return f"the process was killed or died ({self.ending})"
        return last.reason

    @property
    def ending(self) -> str:
        """Exit code or name of the signal for messages."""
        return f"signal {signal.Signals(-self.code).name}" if self.code < 0 else f"exit code {self.code}"

    @property
    def exit_code(self) -> int:
        """Exit code as reported by a shell: 128 + N for signal N."""
        return 128 - self.code if self.code < 0 else self.code

    @property
    def permanent_error(self) -> str | None:
        """Error that another start cannot avoid, such as a missing module or script; None for all other errors."""
        found = _PERMANENT_ERRORS.search(self.traceback)
        if found is not None:
            return self.traceback[found.start(1) :].splitlines()[0].strip().rstrip(".")
        is_line = bool(self.traceback) and not self.traceback.startswith(TRACEBACK_START)
        return self.traceback if is_line and not self.changed else None

    @property
    def last_line(self) -> str:
        """Last line of the traceback."""
        lines = [line for line in self.traceback.strip().splitlines() if line.strip()]
        return lines[-1].strip() if lines else "no message"


def newest(states: Mapping[FitKey, StateEvent]) -> StateEvent | None:
    """Return the newest of these events; None if there are none."""
    return max(states.values(), key=lambda state: state.time_utc, default=None)
