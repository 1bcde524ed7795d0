"""One start of a command, and what its end means for the trainings in it."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from lightning_green.ledger.events import Finished, Started, StateEvent
from lightning_green.supervisor.command import FitKey, Trainings

_HOPELESS = re.compile(
    r"^(ImportError|ModuleNotFoundError|SyntaxError|IndentationError|[\w.]+\.OtherTrainingError)\b", re.MULTILINE
)


class Outcome(Enum):
    """How an attempt ended."""

    FINISHED = "the command ended with 0 and nothing is left to continue"
    PAUSED = "a training has exited until a planned time"
    NOT_CONTINUED = "the command ended with 0 and did not continue a training that it should have continued"
    FAILED_AFTERWARDS = "the command failed after trainings that another start would train again"
    CRASHED = "the command or a training in it failed, and another start may help"


@dataclass(frozen=True)
class Attempt:
    """One start of a command.

    Args:
        code: Its exit code; negative for a signal.
        trace: The last traceback that it printed, or an empty text.
        before: The trainings before it.
        after: The trainings after it.
        token: Its name in ``run.json``.

    """

    code: int
    trace: str
    before: Trainings
    after: Trainings
    token: str

    @cached_property
    def changed(self) -> dict[FitKey, StateEvent]:
        """The fits that it has trained or restored."""
        return self.after.since(self.before)

    @cached_property
    def broken(self) -> dict[FitKey, StateEvent]:
        """The fits that it left unfinished; where it trained nothing, those that were unfinished before."""
        return self.after.broken(self.changed or self.after.states)

    @cached_property
    def left(self) -> dict[FitKey, StateEvent]:
        """The fits that it should have continued and did not."""
        return self.after.left(self.changed, self.token)

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        if any(key in self.changed for key in self.after.paused):
            return Outcome.PAUSED
        if self.code == 0 and not self.broken:
            return Outcome.NOT_CONTINUED if self.left else Outcome.FINISHED
        failed = 0 < self.code < 128  # and was not killed, between two fits for example
        if failed and self.changed and self.after.are_finished and not self.after.are_restored:
            return Outcome.FAILED_AFTERWARDS
        return Outcome.CRASHED

    @property
    def why(self) -> str:
        """How it ended, for people."""
        last = newest(self.broken or self.changed)
        if last is None or not self.changed:
            return "died before the training began"
        if isinstance(last, Finished):
            return f"the training finished; the script then ended with {self.ending}"
        if isinstance(last, Started):
            return f"the process was killed or died ({self.ending})"
        return last.reason

    @property
    def ending(self) -> str:
        """The exit code or the signal, for people."""
        return f"signal {signal.Signals(-self.code).name}" if self.code < 0 else f"exit code {self.code}"

    @property
    def exit_code(self) -> int:
        """The exit code as a shell has it: 128 + N for signal N."""
        return 128 - self.code if self.code < 0 else self.code

    @property
    def hopeless_error(self) -> str | None:
        """The error that another start does not heal, or None."""
        found = _HOPELESS.search(self.trace)
        return None if found is None else self.trace[found.start() :].splitlines()[0].strip().rstrip(".")

    @property
    def last_line(self) -> str:
        """The last line of its traceback."""
        lines = [line for line in self.trace.strip().splitlines() if line.strip()]
        return lines[-1].strip() if lines else "no message"


def newest(states: Mapping[FitKey, StateEvent]) -> StateEvent | None:
    """Return the newest of these events; None without one."""
    return max(states.values(), key=lambda state: state.time_utc, default=None)
