"""Messages about failures and recoveries of a source, each of them once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta

from lightning_green.grid.live.query import Failure
from lightning_green.grid.live.snapshot import WARN_AGE, Found
from lightning_green.utilities.durations import format_duration

_CLOCK_TOLERANCE = timedelta(minutes=10)
_MOST_MESSAGES = 100


class FailureReports:
    """Messages about one source.

    Args:
        source: Name of the source.

    Attributes:
        problem: One sentence about the current failure, or None.

    """

    def __init__(self, source: str) -> None:
        self.problem: str | None = None
        self._source = source
        self._failing: dict[str, str] = {}
        self._reported: set[str] = set()
        self._messages: deque[str] = deque(maxlen=_MOST_MESSAGES)

    def update(self, failures: Sequence[Failure], substitute: str) -> None:
        """Report new failures and recoveries after a round of requests.

        Args:
            failures: The requests that failed in this round.
            substitute: Clause that names the value in use; see ``describe_substitute``.

        """
        for failure in failures:
            is_new = self._failing.get(failure.name) != type(failure.error).__name__
            consequence = "the source provides no forecast" if failure.optional else substitute
            if is_new:
                self.report_once(str(failure.error), f"{self._source}: {failure.error}; {consequence}.")
        for name in set(self._failing) - {failure.name for failure in failures}:
            self._messages.append(f"{self._source} answers again ({name}).")
            self._reported.clear()
        self._failing = {failure.name: type(failure.error).__name__ for failure in failures}
        self.problem = next((str(failure.error) for failure in failures if not failure.optional), None)

    def report_bug(self, error: Exception) -> None:
        """Report an exception that is not a ServiceError."""
        self.problem = f"an unexpected {type(error).__name__}"
        message = f"{self._source}: {self.problem} during a request; the values known so far are used."
        self.report_once(self.problem, message)

    def report_clock_skew(self, skew: timedelta | None) -> None:
        """Report a difference between this machine's clock and the server's, if it is large.

        Args:
            skew: This machine's time minus the server's; None if unknown.

        """
        if skew is None or abs(skew) <= _CLOCK_TOLERANCE:
            return
        direction = "ahead of" if skew > timedelta(0) else "behind"
        amount = format_duration(abs(skew.total_seconds()))
        message = f"This machine's clock is {amount} {direction} the clock of {self._source}; check both clocks."
        self.report_once("clock", message)

    def report_once(self, key: str, message: str) -> None:
        """Add ``message`` unless one with the same ``key`` was added since the last recovery."""
        if key not in self._reported:
            self._reported.add(key)
            self._messages.append(message)

    def pop_messages(self) -> list[str]:
        """Return the messages since the last call."""
        found = []
        while self._messages:
            found.append(self._messages.popleft())
        return found


def describe_substitute(found: Found | None) -> str:
    """Return a clause that names the value in use while a source fails.

    Args:
        found: The value for the present, or None.

    """
    if found is None:
        return "no value is known, so the run does not wait"
    if found.quality == "forecast":
        return "the last forecast is used"
    if found.quality == "estimated" and found.age >= timedelta(days=1):
        return "the same hour of an earlier day is used"
    age = format_duration(found.age.total_seconds())
    return f"the last value ({age} old) is used" if found.age > WARN_AGE else "the last value is used"
