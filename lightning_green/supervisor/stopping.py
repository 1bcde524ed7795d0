"""Stopping a command after a signal: it has time to save its state, and nothing of it is left behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from lightning_green.supervisor.processes import CommandProcesses, describe
from lightning_green.supervisor.signals import Signals
from lightning_green.supervisor.survivors import send

POLL_SECONDS = 0.1
BACKGROUND_SECONDS = 5.0
"""How long processes in the background may take to end, by themselves and again after a signal."""
_ACTIONS = {0: "Waiting for", signal.SIGTERM: "Asking to exit:", signal.SIGKILL: "Killing"}


class Stopping:
    """Passes signals on to a command, and kills it if it does not end after one.

    Args:
        processes: The processes of the command.
        stop_seconds: How long they may take to save the state of the training and to exit.
        print_line: Receives messages for the user.

    """

    def __init__(self, processes: CommandProcesses, stop_seconds: float, print_line: Callable[[str], None]) -> None:
        self._processes, self._stop_seconds, self._print_line = processes, stop_seconds, print_line
        self._kill_at: float | None = None

    def pass_on(self, signals: Signals) -> None:
        """Pass on the signals that have arrived; to be called several times a second."""
        for number in signals.take():
            if self._kill_at is None:
                self._kill_at = time.monotonic() + self._stop_seconds
            self._processes.stop(number)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._print_line(f"The command is still running after {self._stop_seconds:.0f} s. Killing.")
            self._kill_at = float("inf")
            self._processes.send(signal.SIGKILL)


def end_background(home: Path, print_line: Callable[[str], None]) -> None:
    """End the processes that all starts of a command have left in the background.

    Args:
        home: Directory of the runs of the command.
        print_line: Receives messages for the user.

    """
    processes = CommandProcesses(home)
    left = processes.in_background()
    for number in (0, signal.SIGTERM, signal.SIGKILL):  # 0 is no signal: they may be about to end
        if not left:
            return
        print_line(f"{_ACTIONS[number]} processes in the background: {describe(left)}.")
        send(left, number)
        limit = time.monotonic() + BACKGROUND_SECONDS
        while (left := processes.in_background()) and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)
