"""A background thread that takes samples periodically."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Sampler:
    """Call ``sample`` every ``seconds`` in a daemon thread. Calls never overlap.

    Args:
        sample: Takes one sample and handles its failures.
        seconds: Time from the end of one sample to the start of the next.
        name: Name of the thread.

    """

    def __init__(self, sample: Callable[[], None], seconds: float, name: str) -> None:
        self._sample = sample
        self._seconds = seconds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread. The first sample is due after one interval."""
        self._thread.start()

    def now(self) -> None:
        """Take a sample in the calling thread."""
        with self._lock:
            if not self._stop.is_set():
                self._sample()

    def stop(self) -> None:
        """Stop the thread and wait for a running sample, for at most one interval or 5 s."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=max(self._seconds, 5.0))

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self.now()
