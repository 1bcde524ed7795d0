"""Workers of data loaders that ignore the signals which ask their training to stop.

SLURM, and a terminal without the supervisor, send a signal to every process of a job. A worker that ends takes the
training with it before the next batch, where the state would be saved.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import active_children
from multiprocessing.util import Finalize
from typing import Any

import torch

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
END_SECONDS = 10.0

_trains: torch.Tensor | None = None


class IgnoreStopSignals:
    """A ``worker_init_fn`` that makes a worker ignore signals while a fit trains, and then calls the user's own.

    Args:
        inner: The user's own.

    """

    def __init__(self, inner: Callable[[int], None] | None) -> None:
        self.inner, self._parent, self._trains = inner, os.getpid(), _training_flag()

    def __call__(self, worker_id: int) -> None:  # noqa: D102
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        if self.inner is not None:
            self.inner(worker_id)

    def _on_signal(self, number: int, frame: Any) -> None:
        if not self._trains.item() or os.getppid() != self._parent:
            os._exit(0)  # as the handler of PyTorch does for the parent's SIGTERM


def protect_workers(loader: Any) -> Callable[[], None] | None:
    """Let the workers that a loader starts from now on ignore signals while a fit trains.

    Args:
        loader: A ``DataLoader`` or one with the same ``worker_init_fn``.

    Returns:
        A function that undoes it; None for a loader without worker processes, or one that is protected already.

    """
    if not hasattr(loader, "worker_init_fn") or not getattr(loader, "num_workers", 0) or workers_are_threads(loader):
        return None
    own = loader.worker_init_fn
    if isinstance(own, IgnoreStopSignals):
        return None
    loader.worker_init_fn = IgnoreStopSignals(own)
    return lambda: setattr(loader, "worker_init_fn", own)


def workers_are_threads(loader: Any) -> bool:
    """Return whether the workers of a loader are threads of this process, as MONAI's ``use_thread_workers`` makes."""
    kind = getattr(getattr(loader, "multiprocessing_context", None), "Process", None)
    return isinstance(kind, type) and issubclass(kind, threading.Thread)


def set_training(trains: bool) -> None:
    """Set whether a fit of this process trains, for its workers."""
    _training_flag().fill_(int(trains))


def _training_flag() -> torch.Tensor:
    global _trains
    if _trains is None:
        _trains = torch.zeros(1, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        Finalize(None, _end_workers, exitpriority=100)  # before `multiprocessing` waits for its daemons without limit
    return _trains


def _end_workers() -> None:
    """End workers that are still running at the end of this process, and kill those that do not react."""
    set_training(trains=False)
    workers = [child for child in active_children() if child.daemon]
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(END_SECONDS)
        if worker.is_alive():
            worker.kill()
