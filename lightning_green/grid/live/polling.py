"""The thread that polls a source."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Protocol

FIRST_ANSWER_SECONDS = 8.0
"""How long a start, before the training, waits for a first answer."""
SHORTEST_WAIT, LONGEST_WAIT = 5.0, 900.0
"""Limits of the time between two polls of an HTTP service in seconds."""
_JOIN_SECONDS = 1.0


class Pollable(Protocol):
    """The methods that ``Poller`` calls, all of them on its thread."""

    clock: Callable[[], datetime]

    def load_cache(self, now: datetime) -> bool:
        """Load cached answers and return whether a current value is known."""

    def refresh(self, now: datetime) -> list[str]:
        """Request everything that is due."""

    def seconds_to_next_fetch(self, now: datetime) -> float:
        """Return the seconds until a request is due."""


class Poller:
    """Polls a source on a daemon thread.

    The thread survives every exception, ends after ``stop``, and does not keep the interpreter alive. A forked
    process has no such thread until it calls ``start``.

    Args:
        target: The source.
        name: Name of the thread.
        report: Called on the thread with every exception, which is then discarded.

    """

    def __init__(self, target: Pollable, name: str, report: Callable[[Exception], None]) -> None:
        self._target = target
        self._report = report
        self._name = name
        self._stop = threading.Event()
        self._answered = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread unless it is running."""
        if self.is_running:
            return
        # Each thread has its own events: the thread of an earlier start may still be in its last request.
        self._stop, self._answered = threading.Event(), threading.Event()
        arguments = (self._stop, self._answered)
        self._thread = threading.Thread(target=self._run, args=arguments, name=self._name, daemon=True)
        self._thread.start()

    def wait_for_first_answer(self, seconds: float) -> bool:
        """Wait until a current value is known or every request was made once; return whether that happened in time."""
        return self._answered.wait(max(0.0, seconds))

    def stop(self) -> None:
        """End the thread, which may take until its current request ends."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=_JOIN_SECONDS)

    def _run(self, stop: threading.Event, answered: threading.Event) -> None:
        if self._guard(self._load_cache):
            answered.set()
        while not stop.is_set():
            wait = self._guard(self._poll)
            answered.set()
            stop.wait(LONGEST_WAIT if wait is None else wait)

    def _load_cache(self, now: datetime) -> float:
        return float(self._target.load_cache(now))

    def _poll(self, now: datetime) -> float:
        self._target.refresh(now)
        return self._target.seconds_to_next_fetch(now)

    def _guard(self, action: Callable[[datetime], float]) -> float | None:
        """Return the result of ``action``. After an exception, report it and return None."""
        try:
            return action(self._target.clock())
        except Exception as error:  # noqa: BLE001  (a bug in a parser must not end the polling)
            with suppress(Exception):
                self._report(error)
        return None
