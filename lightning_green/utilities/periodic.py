"""A background thread that calls a function periodically."""

from __future__ import annotations

import threading
from collections.abc import Callable


class PeriodicThread:
    """Calls ``function`` every ``seconds`` of real time in a daemon thread. Calls never overlap.

    Args:
        function: Handles its failures.
        seconds: Time from the end of one call to the start of the next.
        name: Name of the thread.

    """

    def __init__(self, function: Callable[[], None], seconds: float, name: str) -> None:
        self._function, self._seconds = function, seconds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, once. The first call is due after one interval."""
        self._thread.start()

    def now(self) -> None:
        """Call the function in the calling thread, if the thread has not been stopped."""
        with self._lock:
            if not self._stop.is_set():
                self._function()

    def stop(self) -> bool:
        """Stop the thread, wait for a running call for at most 5 s, and return whether it has ended."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        return not self._thread.is_alive() or self._thread is threading.current_thread()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self.now()
