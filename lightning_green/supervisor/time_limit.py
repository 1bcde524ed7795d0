"""The time limit of a job: the training saves its state before it, and the run continues in another job."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import datetime, timezone

from lightning_green.supervisor.launchers.launcher import Launcher, Release
from lightning_green.supervisor.processes import CommandProcesses
from lightning_green.supervisor.signals import Signals

SHORTEST_LEAD_SECONDS = 15.0
LEAD_SHARE = 0.1
LAST_SHARE = 0.2
"""Part of the lead after which the job is released, whether or not the state has been saved."""
RETRY_SECONDS = 5.0
"""Time between two attempts to release a job that is near its limit."""


class TimeLimit:
    """Asks a training to save its state and to exit before the time limit of its job.

    It asks ``stop_seconds`` before the limit, but not earlier than in the last tenth of the job's time, and as soon as
    a signal before the limit arrives. A training that is not ready for a signal, because it is still importing, is
    asked once it is. If the training is still running shortly before the limit, the job is released anyway: after the
    limit, nothing would start it again.

    Args:
        launcher: The launcher.
        signals: Signals that the supervisor receives.
        stop_seconds: How long the training may take to save its state and to exit.
        print_line: Receives messages for the user.
        may_release: Whether the job may be released while the training is still running.

    Attributes:
        is_reached: Whether the training has been asked, or has exited because of a signal before the limit.
        release: The release of the job while the training was still running, or None.

    """

    def __init__(
        self,
        launcher: Launcher,
        signals: Signals,
        stop_seconds: float,
        print_line: Callable[[str], None],
        may_release: Callable[[], bool] = lambda: True,
    ) -> None:
        self._launcher, self._signals, self._print_line = launcher, signals, print_line
        self._stop_seconds, self._began = stop_seconds, time.time()
        self._end = launcher.ends_at()
        self._last = float("inf")
        self._asked, self._may_release = False, may_release
        self.is_reached = False
        self.release: Release | None = None

    @property
    def near_at(self) -> float:
        """Time from which the limit is near, in seconds since the epoch; infinite if it is unknown."""
        return float("inf") if self._end is None else self._end - self._lead

    @property
    def ends_at(self) -> float | None:
        """Time of the limit in seconds since the epoch, or None."""
        return self._end

    @property
    def _lead(self) -> float:
        """Seconds before the limit at which the training is asked."""
        if self._end is None:
            return 0.0
        return max(SHORTEST_LEAD_SECONDS, min(self._stop_seconds, LEAD_SHARE * (self._end - self._began)))

    def check(self, processes: CommandProcesses | None = None) -> None:
        """Ask the training to exit if the limit is near; to be called several times a second.

        Args:
            processes: The processes of the command; None while there are none.

        """
        if self._signals.stop is not None or not self._launcher.can_release:
            return
        if not self.is_reached and self._is_near():
            self.is_reached = True
            self._print_line("The time limit of the job is near. The training saves its state and continues afterward.")
        if not self.is_reached or processes is None:
            return
        self._asked = self._asked or processes.ask_ranks(signal.SIGTERM)
        if self.release is None and time.time() >= self._last:
            self._last = time.time() + RETRY_SECONDS
            if self._may_release():
                self.release = self._launcher.release(datetime.now(timezone.utc), self._print_line)

    def _is_near(self) -> bool:
        now = time.time()
        if self._signals.limit is not None:
            self._last = now + self._stop_seconds if self._end is None else self._latest()
            return True
        if self._end is None or now < self._end - self._lead:
            return False
        self._end = self._launcher.ends_at() or self._end  # it may have been extended
        self._last = self._latest()
        return now >= self._end - self._lead

    def _latest(self) -> float:
        assert self._end is not None
        return self._end - LAST_SHARE * self._lead
