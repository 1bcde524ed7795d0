"""The time that a run needs to return after an exit, measured over its starts."""

from __future__ import annotations

import statistics
import time

from lightning_green.ledger.events import Paused
from lightning_green.run.session import Session
from lightning_green.supervisor.launchers import command_started_at


class ReturnTime:
    """Measures the time from the start of the command to the first new step, in every start of a run.

    A start is measured from the moment at which ``lightning-green run`` starts the command. Without that supervisor,
    and for a fit that began after another one of the same process, it is measured from the start of the fit.

    Args:
        session: Session of the fit.

    Attributes:
        is_unmeasured: Whether this process has not made a step.

    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.is_unmeasured = True
        self._first_batch_end: float | None = None
        events = (event for event in session.history if isinstance(event, Paused))
        self._earlier = [event.startup_seconds for event in events if event.startup_seconds is not None]

    def batch(self) -> None:
        """Record the end of a batch; only the first one of this process counts."""
        if self.is_unmeasured:
            self.is_unmeasured, self._first_batch_end = False, self._now()

    def startup_seconds(self, seconds_per_batch: float | None) -> float | None:
        """Return the seconds of this start up to its first step; None before the end of that step.

        Args:
            seconds_per_batch: Mean time of a step, which is not part of the start.

        """
        session, end = self._session, self._first_batch_end
        if end is None or session.began is None:
            return None
        began = session.began
        if not session.clock.is_simulated and (session.continuing or session.fit == 0):
            began = command_started_at() or began
        return max(0.0, end - began - (seconds_per_batch or 0.0))

    def hours(self, seconds_per_batch: float | None) -> float:
        """Return the median over the starts after an exit; the first start if there is none, and 0 without any.

        Args:
            seconds_per_batch: Mean time of a step.

        """
        this = self.startup_seconds(seconds_per_batch)
        starts = [*self._earlier, *([] if this is None else [this])]
        return statistics.median(starts[1:] or starts) / 3600.0 if starts else 0.0

    def _now(self) -> float:
        return self._session.clock.time() if self._session.clock.is_simulated else time.time()
