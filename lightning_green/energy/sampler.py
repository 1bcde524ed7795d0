"""A thread that takes a sample every so often."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Sampler:
    """Calls ``sample`` every ``seconds`` on a daemon thread of its own, and never two at once.

    Args:
        sample: Takes one sample. It handles the failures that it knows of.
        seconds: Time from the end of one sample to the begin of the next.
        name: Name of the thread.

    """

    def __init__(self, sample: Callable[[], None], seconds: float, name: str) -> None:
        self._sample = sample
        self._seconds = seconds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first sample is due after one interval."""
        self._thread.start()

    def now(self) -> None:
        """Take a sample on the calling thread."""
        with self._lock:
            if not self._stop.is_set():
                self._sample()

    def stop(self) -> None:
        """Take no more samples; a sample under way is waited for, for one interval at most."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=max(self._seconds, 5.0))

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self.now()
