"""Whether a command is started again after a failure."""

from __future__ import annotations

import re

from lightning_green.supervisor.attempt import Attempt

MAX_RESTARTS = 3
LONGEST_BACK_OFF_SECONDS = 300.0
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")  # times, addresses and process ids differ between equal errors


class RestartPolicy:
    """Counts consecutive failures without a new optimizer step.

    Args:
        max_restarts: Restarts without a new step before giving up.
        steps: Optimizer steps done before the first attempt.

    """

    def __init__(self, max_restarts: int, steps: int) -> None:
        self._max_restarts = max_restarts
        self._failures = 0
        self._most_steps = steps
        self._last_traceback = ""

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start; doubles with each consecutive failure."""
        return min(LONGEST_BACK_OFF_SECONDS, 2.0 ** (self._failures - 1))

    def record_pause(self, attempt: Attempt) -> None:
        """Reset the number of failures after a planned exit."""
        self._failures, self._most_steps = 0, max(self._most_steps, attempt.after.steps)

    def record_failure(self, attempt: Attempt) -> str | None:
        """Return the reason to give up after this failure, or None to start again."""
        steps = attempt.after.steps
        progress, self._most_steps = steps > self._most_steps, max(self._most_steps, steps)
        self._failures = 1 if progress else self._failures + 1
        if attempt.permanent_error is not None:
            return f"The command cannot start: {attempt.permanent_error}. Fix the error and rerun the same command."
        traceback = _NUMBERS.sub("0", attempt.traceback)
        if not progress and traceback and traceback == self._last_traceback:
            error = attempt.last_line.rstrip(".")
            return f"The same error occurred twice without a new step: {error}. The command is not started again."
        if self._failures > self._max_restarts:
            count = "1 failure" if self._failures == 1 else f"{self._failures} consecutive failures"
            return f"Gave up after {count} without a new step: {attempt.reason}."
        self._last_traceback = "" if progress else traceback
        return None
