"""Stop at the next batch boundary on SIGTERM, Ctrl-C or the requeue signal of SLURM."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_green._lightning.namespaces import same_package
from lightning_green._lightning.process import is_spawned
from lightning_green._lightning.signals import user_handlers

SECOND_SIGNAL_SECONDS = 1.0


class StopSignals:
    """Signal handlers that only set a flag, used during a fit.

    The SIGTERM handler of Lightning makes its loops raise at points where no state can be saved: before a validation
    and before the end of an epoch. These handlers replace it and call the handlers that the script has registered.

    Attributes:
        received: Name of the first signal, such as ``"SIGTERM"``, or None.

    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._at = 0.0
        self._describe: Callable[[], str] = str
        self._old: dict[int, Any] = {}

    def install(self, requeue: int | None = None, describe: Callable[[], str] = str) -> None:
        """Install the handlers. Does nothing outside the main thread and keeps a Ctrl-C handler of the script.

        Args:
            requeue: Signal that SLURM sends before the time limit, or None.
            describe: Returns what becomes of the training state, in one sentence.

        """
        self._describe = describe
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGTERM] if requeue is None else [signal.SIGTERM, requeue]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            numbers.append(signal.SIGINT)
        self._old = {number: signal.signal(number, self._on_signal) for number in numbers}

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    def _on_signal(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = signal.Signals(number).name, now
            again = " Press Ctrl-C again to stop immediately." if number == signal.SIGINT else ""
            print(f"\nStopping after this batch. {self._describe()}{again}", flush=True)
        elif number == signal.SIGINT and now - self._at > SECOND_SIGNAL_SECONDS:
            raise KeyboardInterrupt  # a terminal and a supervisor may both send the first one
        for handler in user_handlers(self._old.get(number)):
            handler(number, frame)


def raise_stop(name: str, trainer: pl.Trainer) -> NoReturn:
    """Raise the exception that Lightning raises for a signal; one that ends the script if this process was spawned."""
    if is_spawned(trainer):
        raise SystemExit(128 + int(getattr(signal, name)) if trainer.local_rank == 0 else 0)
    if name == "SIGINT":
        raise KeyboardInterrupt
    raise same_package(trainer, SIGTERMException)
