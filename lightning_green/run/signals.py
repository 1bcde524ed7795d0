"""Stop at the next batch boundary on SIGTERM, Ctrl-C, a closed terminal or the requeue signal of SLURM."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
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
        self._number: int | None = None
        self._at = 0.0
        self._old: dict[int, Any] = {}
        self._arrived: threading.Event | None = None

    def install(self, requeue: int | None = None, describe: Callable[[], str] = str) -> None:
        """Install the handlers. Does nothing outside the main thread and keeps a Ctrl-C handler of the script.

        Args:
            requeue: Signal that SLURM sends before the time limit, or None.
            describe: Returns what becomes of the training state, in one sentence.

        """
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGTERM] if requeue is None else [signal.SIGTERM, requeue]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            numbers.append(signal.SIGINT)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # it is ignored under `nohup`
            numbers.append(signal.SIGHUP)
        # A handler may interrupt a write of the same thread, so that it cannot write itself.
        self._arrived = threading.Event()
        threading.Thread(target=self._announce, args=(self._arrived, describe), daemon=True).start()
        self._old = {number: signal.signal(number, self._on_signal) for number in numbers}

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}
        if self._arrived is not None:
            self._arrived.set()  # ends the thread

    def set(self, number: int) -> None:
        """Stop at the next boundary, as if this signal had arrived."""
        if self._number is None:
            self._number, self._at, self.received = number, time.monotonic(), signal.Signals(number).name
            if self._arrived is not None:
                self._arrived.set()  # only once, so that it does not wait for itself

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._number is None:
            self.set(number)
        elif number == signal.SIGINT and time.monotonic() - self._at > SECOND_SIGNAL_SECONDS:
            raise KeyboardInterrupt  # a terminal and a launcher may both send the first one
        for handler in user_handlers(self._old.get(number)):
            handler(number, frame)

    def _announce(self, arrived: threading.Event, describe: Callable[[], str]) -> None:
        arrived.wait()
        if self._number is not None:
            again = " Press Ctrl-C again to stop immediately." if self._number == signal.SIGINT else ""
            _write(f"\nStopping after this batch. {describe()}{again}\n")


def _write(text: str) -> None:
    """Print without the buffer of ``sys.stdout``, which the main thread may hold while it waits for a slow reader."""
    with suppress(OSError, ValueError):  # a closed terminal
        try:
            number = sys.stdout.fileno()
        except (OSError, ValueError, AttributeError):  # a notebook
            print(text, end="", flush=True)
        else:
            os.write(number, text.encode())


def raise_stop(name: str, trainer: pl.Trainer) -> NoReturn:
    """Raise the exception that Lightning raises for a signal; one that ends the script if this process was spawned."""
    if is_spawned(trainer):
        raise SystemExit(128 + int(getattr(signal, name)) if trainer.local_rank == 0 else 0)
    if name == "SIGINT":
        raise KeyboardInterrupt
    raise same_package(trainer, SIGTERMException)
