"""SIGTERM, Ctrl-C and SLURM's signal as a wish to stop at the next boundary."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any, NoReturn

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_green._lightning.signals import user_handlers

SECOND_SIGNAL_SECONDS = 1.0


class StopSignals:
    """Handlers that set a flag and do nothing else, for the time of a fit.

    Lightning's own SIGTERM handler has its loops raise in places where a state cannot be saved: before a validation
    that is due, and before the end of an epoch. So ours stands in its place, and calls what the script had registered.

    Attributes:
        received: ``"SIGTERM"`` or ``"SIGINT"`` once one came, else None.

    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._at = 0.0
        self._old: dict[int, Any] = {}

    def take(self, requeue: int | None = None) -> None:
        """Put the handlers in; only in the main thread, and not over a Ctrl-C handler of the script.

        Args:
            requeue: Another signal that asks to stop: the one by which SLURM says that the time is nearly over.

        """
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGTERM] if requeue is None else [signal.SIGTERM, requeue]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            numbers.append(signal.SIGINT)
        self._old = {number: signal.signal(number, self._on_signal) for number in numbers}

    def give_back(self) -> None:
        """Put back the handlers that were there."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    def _on_signal(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = signal.Signals(number).name, now
            again = " Ctrl-C again stops at once." if number == signal.SIGINT else ""
            print(f"\nStopping after this batch, with the training state saved.{again}", flush=True)
        elif number == signal.SIGINT and now - self._at > SECOND_SIGNAL_SECONDS:
            raise KeyboardInterrupt  # a terminal and a supervisor may both deliver the first, a moment apart
        for handler in user_handlers(self._old.get(number)):
            handler(number, frame)


def raise_stop(name: str) -> NoReturn:
    """Stop as Lightning does on a signal of that name."""
    if name == "SIGINT":
        raise KeyboardInterrupt
    raise SIGTERMException
