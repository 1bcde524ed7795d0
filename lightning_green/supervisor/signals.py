"""The signals that a supervisor receives: its handlers set attributes, and its loops act on them."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end the run with its state saved."""
REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that SLURM may send before a time limit; only inside a SLURM job."""


class Signals(threading.Event):
    """Signal handlers while a supervisor runs. As an event, it is set once the run is to stop.

    A signal that is ignored, as SIGHUP under ``nohup``, stays ignored.

    Args:
        continues: Whether the run continues in another job after a signal before a time limit.

    Attributes:
        stop: The first signal that ends the run, or None.
        limit: The first signal before a time limit, if the run continues after it; or None.
        send: Sends a signal to all processes of the command, if it is running.

    Examples:
        ```python
        with Signals() as signals:
            while not signals.is_set():
                signals.wait(10.0)
        ```

    """

    def __init__(self, continues: bool = False) -> None:
        super().__init__()
        self._continues = continues
        self.stop: int | None = None
        self.limit: int | None = None
        self.send: Callable[[int], None] = _send_to_none
        self._received: list[int] = []
        self._suspend = False
        self._old: dict[int, Any] = {}
        self._reader = self._writer = self._old_writer = -1

    def __enter__(self) -> Signals:
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        self._old_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        handlers: dict[int, Any] = dict.fromkeys(STOP, self._on_stop)
        if "SLURM_JOB_ID" in os.environ:
            handlers.update(dict.fromkeys(REQUEUE, self._on_limit if self._continues else self._on_stop))
        handlers[signal.SIGTSTP] = self._on_suspend
        handlers = {number: own for number, own in handlers.items() if signal.getsignal(number) != signal.SIG_IGN}
        handlers[signal.SIGCHLD] = _wake_up
        self._old = {number: signal.signal(number, own) for number, own in handlers.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            if handler is not None:  # one that was not installed from Python
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_writer)
        os.close(self._reader)
        os.close(self._writer)

    def _on_stop(self, number: int, frame: Any) -> None:
        if self.stop is None:
            self.stop = number
        self._received.append(number)

    def _on_limit(self, number: int, frame: Any) -> None:
        if self.limit is None:
            self.limit = number

    def _on_suspend(self, number: int, frame: Any) -> None:
        self._suspend = True

    def is_set(self) -> bool:
        """Return whether the run is to stop."""
        return self.stop is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until a signal arrives or the time is over; return whether the run is to stop."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._received:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0.0:
                break
            self.wait_for_child(left)
        return self.is_set()

    def wait_for_child(self, timeout: float | None = None) -> None:
        """Wait until a signal arrives, a child process ends or the time is over."""
        if self._suspend:
            self._suspend_now()
        if not self._received:
            poll = select.poll()  # `select.select` refuses descriptors above 1023
            poll.register(self._reader, select.POLLIN)
            poll.poll(None if timeout is None else timeout * 1000.0)
            with suppress(BlockingIOError):
                os.read(self._reader, 4096)

    def take(self) -> list[int]:
        """Return the signals to stop that have arrived since the last call."""
        taken, self._received = self._received, []
        return taken

    def _suspend_now(self) -> None:
        """Stop the command and this process, and continue both when the shell does: the command has its own session."""
        self._suspend = False
        self.send(signal.SIGSTOP)
        own = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, own)  # SIGCONT has arrived
        self.send(signal.SIGCONT)


def _wake_up(number: int, frame: Any) -> None:
    """Let ``wait_for_child`` return: only signals with a handler wake it."""


def _send_to_none(number: int) -> None:
    """Send a signal to no process."""
