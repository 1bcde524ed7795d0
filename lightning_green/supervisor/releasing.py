"""Whether and when a supervisor gives its machine back, and a launcher starts the command again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from lightning_green.ledger.events import Interrupted
from lightning_green.supervisor.attempt import Attempt, newest
from lightning_green.supervisor.launchers.launcher import RELEASED_EXIT_CODE, Launcher, Release
from lightning_green.supervisor.processes import CommandProcesses
from lightning_green.supervisor.signals import REQUEUE, Signals
from lightning_green.supervisor.time_limit import TimeLimit, count_without_progress
from lightning_green.supervisor.waiting import Waiting

GAVE_UP = 1
_LIMIT_SIGNALS = {signal.Signals(number).name for number in REQUEUE}


class Releasing:
    """Decides that a supervisor ends, and that its launcher starts the command again.

    Args:
        launcher: The launcher. With one that cannot release the machine, nothing is decided.
        signals: Signals that the supervisor receives.
        stop_seconds: How long a training may take to save its state and to exit.
        print_line: Receives messages for the user, one line each.

    Attributes:
        begin_again: Time from which the launcher has to start the command again; None otherwise.

    """

    def __init__(
        self, launcher: Launcher, signals: Signals, stop_seconds: float, print_line: Callable[[str], None]
    ) -> None:
        self._launcher, self._print_line = launcher, print_line
        self._limit = TimeLimit(launcher, signals, stop_seconds, print_line)
        self._planned_start: datetime | None = None
        self._is_first_start = True
        self.begin_again: datetime | None = None

    @property
    def release(self) -> Release | None:
        """The release of a job that was near its time limit while its training was still running, or None."""
        return self._limit.release

    def watch(self, processes: CommandProcesses) -> None:
        """Ask the processes of a command to exit before the time limit; to be called several times a second."""
        self._limit.check(processes)

    def during(self, waiting: Waiting, now: datetime) -> bool:
        """Return whether the machine is released during a wait, which is also that of a start that came too early.

        Args:
            waiting: The wait.
            now: Current time.

        """
        self._planned_start = waiting.start
        if not self._launcher.can_release or waiting.start - now < self._launcher.shortest_release:
            return False
        self._print_line(waiting.describe())
        self.begin_again = waiting.start
        return True

    def before_start(self, home: Path, steps: int, max_restarts: int) -> int | None:
        """Return the exit code of the supervisor if the machine is released instead of another start, or None.

        Args:
            home: Run directory of the command.
            steps: Optimizer steps done until now.
            max_restarts: Jobs that may meet their time limit in a row without a new step, after the first one.

        """
        if self.begin_again is not None:
            return RELEASED_EXIT_CODE
        self._limit.check()
        return self._at_limit(home, steps, max_restarts) if self._limit.is_reached else None

    def after(self, attempt: Attempt, home: Path, max_restarts: int) -> int | None:
        """Return the exit code of the supervisor if a training has exited because of the time limit, or None.

        Args:
            attempt: The attempt that has ended.
            home: Run directory of the command.
            max_restarts: See ``before_start``.

        """
        last = newest(attempt.broken)
        by_signal = isinstance(last, Interrupted) and last.signal in _LIMIT_SIGNALS
        if self._launcher.can_release and (self._limit.is_reached or by_signal):
            return self._at_limit(home, attempt.after.steps, max_restarts)
        return None

    def _at_limit(self, home: Path, steps: int, max_restarts: int) -> int:
        count = count_without_progress(home, steps)
        if count > max_restarts + 1 and self._limit.release is None:
            self._print_line(
                f"Gave up after {count} jobs that met their time limit without a new step. Use a longer time limit, or "
                "a signal closer to it."
            )
            return GAVE_UP
        self.begin_again = datetime.now(timezone.utc)
        return RELEASED_EXIT_CODE

    def waited_since(self) -> float | None:
        """Return the time from which the first start has waited for its machine; None for now, and for later starts."""
        is_first, self._is_first_start = self._is_first_start, False
        began = self._launcher.eligible_at() if is_first else None
        if began is None:
            return None
        planned = began if self._planned_start is None else self._planned_start.timestamp()
        return min(max(began, planned), time.time())
