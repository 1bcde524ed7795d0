"""Whether and when a supervisor gives its machine back, and a launcher starts the command again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import datetime, timezone

from lightning_green.ledger.events import Interrupted
from lightning_green.supervisor.attempt import Attempt, newest
from lightning_green.supervisor.command import Trainings
from lightning_green.supervisor.kept_devices import record_kept
from lightning_green.supervisor.launchers.launcher import RELEASED_EXIT_CODE, Launcher, Release
from lightning_green.supervisor.processes import CommandProcesses
from lightning_green.supervisor.progress import JobProgress
from lightning_green.supervisor.signals import REQUEUE, Signals
from lightning_green.supervisor.time_limit import RETRY_SECONDS, TimeLimit
from lightning_green.supervisor.waiting import Waiting
from lightning_green.utilities.clock import Clock

GAVE_UP = 1
REFUSED_SECONDS = 600.0
"""Time between two attempts to release a machine during a wait."""
LEAST_REFUSED_SECONDS = 30.0
"""The same shortly before the time limit of the job."""
_LIMIT_SIGNALS = {signal.Signals(number).name for number in REQUEUE}


class Releasing:
    """Decides that a supervisor ends, and that its launcher starts the command again.

    Args:
        launcher: The launcher. With one that cannot release the machine, nothing is decided.
        signals: Signals that the supervisor receives.
        stop_seconds: How long a training may take to save its state and to exit.
        print_line: Receives messages for the user, one line each.
        progress: Counts the jobs that meet their time limit without progress.
        read: Returns the state of the trainings.

    Attributes:
        begin_again: Time from which the launcher has to start the command again; None otherwise.
        retry_at: Time at which a refused release is tried again during a wait, in seconds since the epoch, or None.

    """

    def __init__(
        self,
        launcher: Launcher,
        signals: Signals,
        stop_seconds: float,
        print_line: Callable[[str], None],
        progress: JobProgress,
        read: Callable[[], Trainings],
    ) -> None:
        self._launcher, self._print_line, self._progress = launcher, print_line, progress
        self._read = read
        self._limit = TimeLimit(launcher, signals, stop_seconds, print_line, lambda: progress.may_continue(read()))
        self._planned_start: datetime | None = None
        self._is_first_start, self._is_at_limit = True, False
        self.begin_again: datetime | None = None
        self.retry_at: float | None = None

    def release_machine(self) -> Release | None:
        """Release the machine if that was decided, and return the release; the run directory has to be unlocked.

        At a time limit a refused release is repeated until the limit, after which nothing would start the run again.
        """
        if self._limit.release is not None or self.begin_again is None:
            return self._limit.release
        if self._launcher.refused_at is not None:  # up to this attempt
            self._record_kept()
        last = (self._limit.ends_at or time.time()) + REFUSED_SECONDS  # the job may end a little later
        release = self._launcher.release(self.begin_again, self._print_line)
        while release is None and self._is_at_limit and self._launcher.can_release and time.time() < last:
            time.sleep(RETRY_SECONDS)
            release = self._launcher.release(self.begin_again, self._print_line)
        if release is None:
            self._record_kept()
        return release

    def _record_kept(self) -> None:
        record_kept(self._read().paused, self._launcher.created_at, self._print_line)

    def watch(self, processes: CommandProcesses) -> None:
        """Ask the processes of a command to exit before the time limit; to be called several times a second."""
        self._limit.check(processes)

    def during(self, waiting: Waiting, clock: Clock) -> bool:
        """Return whether the machine is released during a wait, which is also that of a start that came too early.

        Args:
            waiting: The wait.
            clock: Clock of the run. The wait of a simulated one takes no time, so nothing is released.

        """
        self._planned_start, self.retry_at = waiting.start, None
        if not self._launcher.can_release or clock.is_simulated:
            return False
        if waiting.start - clock.now() < self._launcher.shortest_release:
            return False
        if (retry_at := self._next_attempt()) > time.time():
            self.retry_at = retry_at
            return False
        self._print_line(waiting.describe())
        self.begin_again = waiting.start
        return True

    def _next_attempt(self) -> float:
        """Return the time before which a refused release is not tried again, in seconds since the epoch."""
        if (refused_at := self._launcher.refused_at) is None:
            return 0.0
        return min(refused_at + REFUSED_SECONDS, max(refused_at + LEAST_REFUSED_SECONDS, self._limit.near_at))

    def before_start(self, trainings: Trainings) -> int | None:
        """Return the exit code of the supervisor if the machine is released instead of another start, or None.

        Args:
            trainings: State of the trainings.

        """
        if self.begin_again is not None:
            return RELEASED_EXIT_CODE
        self._limit.check()
        return self._at_limit(trainings) if self._limit.is_reached else None

    def after(self, attempt: Attempt) -> int | None:
        """Return the exit code of the supervisor if a training has exited because of the time limit, or None.

        Args:
            attempt: The attempt that has ended.

        """
        last = newest(attempt.broken)
        by_signal = isinstance(last, Interrupted) and last.signal in _LIMIT_SIGNALS
        if self._launcher.can_release and (self._limit.is_reached or by_signal):
            return self._at_limit(attempt.after)
        return None

    def _at_limit(self, trainings: Trainings) -> int:
        if self._limit.release is None and not self._progress.may_continue(trainings):
            return GAVE_UP
        self.begin_again, self._is_at_limit = datetime.now(timezone.utc), True
        return RELEASED_EXIT_CODE

    def waited_since(self) -> float | None:
        """Return the time from which the first start has waited for its machine; None for now, and for later starts."""
        is_first, self._is_first_start = self._is_first_start, False
        began = self._launcher.eligible_at() if is_first and self._launcher.refused_at is None else None
        if began is None:
            return None
        planned = began if self._planned_start is None else self._planned_start.timestamp()
        return min(max(began, planned), time.time())
