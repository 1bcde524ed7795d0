"""The training loaders as Lightning's fit loop reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import lightning.pytorch as pl
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.utilities.combined_loader import (
    _SUPPORTED_MODES,
    _shutdown_workers_and_reset_iterator,
)

from lightning_green._lightning.replaced import call_all, replace_method

if TYPE_CHECKING:
    from lightning.pytorch.utilities.combined_loader import CombinedLoader

OWN = "_own_loader"
"""Attribute of an object that wraps a loader: the loader of the script."""


def train_loaders(trainer: pl.Trainer) -> CombinedLoader | None:
    """Return the training loaders as the loop reads them; None before the data is set up."""
    return trainer.fit_loop._combined_loader


def prefetched_batches(trainer: pl.Trainer) -> int:
    """Return the number of batches that were read and not yet trained on: 1 if the loaders have no length, else 0."""
    return len(getattr(trainer.fit_loop._data_fetcher, "batches", ()))


def reads_ahead(combined: CombinedLoader) -> bool:
    """Return whether Lightning reads one batch ahead of the training: the loaders together have no length."""
    kind = _SUPPORTED_MODES[combined._mode]["iterator"]
    return sized_len(kind(combined.flattened, combined.limits)) is None


def consumed_loaders(trainer: pl.Trainer) -> list[bool]:
    """Return for each loader of a ``max_size_cycle`` whether it was exhausted in this epoch, which ends with all."""
    combined = trainer.fit_loop._combined_loader
    return list(getattr(None if combined is None else combined._iterator, "_consumed", []))


class _AtPosition:
    """A combination of loaders in a fetcher, while its iterator is created.

    Args:
        combined: The combination.
        consumed: The result of ``consumed_loaders``.

    """

    def __init__(self, combined: CombinedLoader, consumed: list[bool]) -> None:
        self._combined, self._consumed = combined, consumed

    def __len__(self) -> int:
        return len(self._combined)

    def __iter__(self) -> CombinedLoader:
        combined = iter(self._combined)
        if self._consumed:
            combined._iterator._consumed = list(self._consumed)  # type: ignore[union-attr]
        return combined


def rebuild_train_iterator(trainer: pl.Trainer, consumed: list[bool]) -> None:
    """Create the iterators of the training loaders again.

    Args:
        trainer: The trainer.
        consumed: The result of ``consumed_loaders``, which is set before a batch is read ahead.

    """
    fetcher: Any = trainer.fit_loop._data_fetcher
    combined = fetcher._combined_loader
    fetcher._combined_loader = _AtPosition(combined, consumed)
    try:
        iter(fetcher)
    finally:
        fetcher._combined_loader = combined


def wrap_loading(
    trainer: pl.Trainer,
    load: Callable[[str, Callable[[], None]], None],
    combine: Callable[[CombinedLoader], None],
) -> Callable[[], None]:
    """Let a function request the loaders of the script, at the start and, if they are reloaded, at later epochs.

    Loaders that the strategy wraps are visible to the script as its own.

    Args:
        trainer: The trainer.
        load: Called with ``"training"`` or ``"validation"`` and the function of Lightning that requests the loaders.
        combine: Called with the training loaders before Lightning creates their iterators.

    Returns:
        A function that undoes it.

    """
    fit_loop, val_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop
    setup_training, setup_validation = fit_loop.setup_data, val_loop.setup_data
    load_states = fit_loop._load_combined_loader_states

    def training() -> None:
        if fit_loop._combined_loader is None or fit_loop._should_reload_train_dl:
            load("training", setup_training)
            _show_own(fit_loop._combined_loader)

    def validation() -> None:
        if val_loop._combined_loader is None or val_loop._should_reload_val_dl:
            load("validation", setup_validation)
            _show_own(val_loop._combined_loader)

    def load_combined_states() -> None:
        load_states()
        assert fit_loop._combined_loader is not None
        combine(fit_loop._combined_loader)

    def return_own() -> None:
        for combined in (fit_loop._combined_loader, val_loop._combined_loader):
            if combined is not None:
                for loader in combined.flattened:
                    if hasattr(loader, OWN):
                        _shutdown_workers_and_reset_iterator(loader)
                combined.flattened = _own(combined)

    return call_all(
        replace_method(fit_loop, "setup_data", training),
        replace_method(val_loop, "setup_data", validation),
        replace_method(fit_loop, "_load_combined_loader_states", load_combined_states),
        return_own,
    )


def _own(combined: CombinedLoader) -> list[Any]:
    """Return the loaders of the script, in place of the objects that wrap them."""
    return [getattr(loader, OWN, loader) for loader in combined.flattened]


def _show_own(combined: CombinedLoader | None) -> None:
    """Let ``trainer.train_dataloader`` and ``val_dataloaders`` be the script's own; the loops read ``flattened``."""
    if combined is not None:
        wrapped = combined.flattened
        combined.flattened = _own(combined)
        combined._flattened = wrapped


@contextmanager
def at_epoch(trainer: pl.Trainer, epoch: int) -> Iterator[None]:
    """Let ``current_epoch`` be another one, for the functions of the script that return loaders."""
    progress = trainer.fit_loop.epoch_progress.current
    before, progress.completed = progress.completed, epoch
    try:
        yield
    finally:
        progress.completed = before


class CountsDataWait(Protocol):
    """Adds up the seconds in which the training loop waits for data."""

    data_wait_seconds: float


def watch_fetches(trainer: pl.Trainer, monotonic: Callable[[], float], counts: CountsDataWait) -> Callable[[], None]:
    """Measure every fetch of a training batch, in which the loop waits for data.

    The loop passes these hooks of Lightning's profiler to its fetcher when an epoch begins.

    Args:
        trainer: The trainer.
        monotonic: Returns seconds since a fixed point.
        counts: Receives the seconds.

    Returns:
        A function that ends the measurement.

    """
    epoch_loop = trainer.fit_loop.epoch_loop
    before, after = epoch_loop._on_before_fetch, epoch_loop._on_after_fetch

    began = 0.0

    def on_before_fetch() -> None:
        nonlocal began
        before()
        began = monotonic()

    def on_after_fetch() -> None:
        counts.data_wait_seconds += monotonic() - began
        after()

    return call_all(
        replace_method(epoch_loop, "_on_before_fetch", on_before_fetch),
        replace_method(epoch_loop, "_on_after_fetch", on_after_fetch),
    )
