"""The loaders of one fit: wrapped to count their batches, and restored at a saved position."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from lightning_green._lightning.loaders import (
    OWN,
    at_epoch,
    consumed_loaders,
    prefetched_batches,
    reads_ahead,
    rebuild_train_iterator,
    train_loaders,
    wrap_loading,
)
from lightning_green._lightning.loops import is_training_stage
from lightning_green._lightning.module_attributes import attributes_of
from lightning_green._lightning.replaced import call_all
from lightning_green.resume.attribute_values import fingerprint
from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.iterable_loaders import ReplayedLoader, has_state, has_unreliable_state, why_not_replayed
from lightning_green.resume.loaders import CountingLoader, count_batches, wrap_loaders
from lightning_green.resume.object_generators import (
    find_generators,
    find_iterators,
    generator_states,
    set_generator_states,
)
from lightning_green.resume.pipeline_state import Created
from lightning_green.resume.random_states import capture_random_states, restore_random_states
from lightning_green.resume.stateful_loaders import StatefulLoader
from lightning_green.resume.worker_signals import protect_workers, set_training

if TYPE_CHECKING:
    from lightning.pytorch.utilities.combined_loader import CombinedLoader


class LoaderPositions:
    """Saves and restores the positions in the loaders of one fit.

    Args:
        trainer: The trainer.
        is_tuning: Returns whether a tuner reads the loaders at this moment; they are not wrapped then.

    """

    def __init__(self, trainer: pl.Trainer, is_tuning: Callable[[], bool]) -> None:
        self._trainer, self._is_tuning = trainer, is_tuning
        self._deferred = False
        self._validation: list[CountingLoader] = []
        self._saved_validation: list[list[Any]] = []
        self._reloads: dict[str, dict[str, Any]] = {}
        self._saved_reloads: dict[str, dict[str, Any]] = {}
        self._why_epochs_only: str | None = None
        self._why_never: str | None = None
        self._created = Created()
        self._protected: list[Callable[[], None]] = []

    @property
    def why_epochs_only(self) -> str | None:
        """Why a resume in the middle of an epoch is not exact, as far as it is known; None if it is."""
        return self._why_epochs_only or self._first_reason("why_epochs_only")

    @property
    def why_never(self) -> str | None:
        """Why no resume is exact, as far as it is known; None if one is."""
        return self._why_never or self._first_reason("why_never")

    def _first_reason(self, name: str) -> str | None:
        return next((why for loader in self._training_loaders() if (why := getattr(loader, name, None))), None)

    def attach(self, resuming: bool) -> Callable[[], None]:
        """Wrap every loader that the strategy processes from now on; return a function that undoes it.

        Args:
            resuming: Whether a position is about to be restored, so that no batch may be read before.

        """
        self._deferred = resuming
        set_training(trains=True)
        return call_all(
            wrap_loaders(self._trainer.strategy, self._wrap),
            wrap_loading(self._trainer, self._load, self._combine),
            self._detach,
        )

    def _detach(self) -> None:
        set_training(trains=False)
        while self._protected:
            self._protected.pop()()

    def capture(self) -> dict[str, Any]:
        """Return the positions as plain Python and tensors."""
        ahead = prefetched_batches(self._trainer)
        return {
            "loaders": [loader.position(0 if loader.exhausted else ahead) for loader in self._training_loaders()],
            "consumed": consumed_loaders(self._trainer),
            "reloads": self._reloads,
            "validation": [[loader.created, loader.kept_state()] for loader in self._validation],
        }

    def set_loading(self, saved: dict[str, Any]) -> None:
        """Set what is needed to request the loaders again, before Lightning does; ``saved`` is that of ``capture``."""
        self._saved_reloads = dict(saved.get("reloads", {}))
        self._saved_validation = list(saved.get("validation", ()))

    def restore(self, saved: dict[str, Any], at_start: bool) -> None:
        """Set the training part of ``capture``; the next ``iter`` of each loader continues there.

        Args:
            saved: The result of ``capture``.
            at_start: Whether the next ``iter`` begins a new pass.

        Raises:
            InexactStateError: If the number of training loaders has changed.

        """
        self._deferred = False
        loaders, positions = self._training_loaders(), saved["loaders"]
        if len(loaders) != len(positions):
            raise InexactStateError(
                f"The checkpoint was saved with {len(positions)} training loader(s) and there are {len(loaders)} now. "
                "Start the run with the original data, or start from scratch with `--fresh`."
            )
        for loader, position in zip(loaders, positions, strict=True):
            loader.resume(position, at_start)

    def restore_finished(self, saved: dict[str, Any]) -> None:
        """Set the training part of ``capture`` of a finished fit, for fits that read the same data after it."""
        self.restore(saved, at_start=True)
        for loader in self._training_loaders():
            if isinstance(loader, ReplayedLoader):
                loader.replay()

    def restore_iterators(self, saved: dict[str, Any]) -> None:
        """Create the iterators of the training loaders again, after ``restore``.

        A new iterator draws the seed of its workers from the loader's generator, which the saved state includes.
        """
        rebuild_train_iterator(self._trainer, saved["consumed"])
        for loader, position in zip(self._training_loaders(), saved["loaders"], strict=True):
            loader.set_generators(position)

    def _load(self, kind: str, setup: Callable[[], None]) -> None:
        """Request loaders that are reloaded every few epochs: after a resume those of the last reload.

        The script may choose the data by the epoch and at random, also with a generator that only the function which
        creates the loaders draws from, so all of these are those of that time.
        """
        if not self._trainer.reload_dataloaders_every_n_epochs or self._is_tuning():  # type: ignore[attr-defined]
            setup()
            return
        if kind == "validation" and self._validation:  # those of the last reload, which are read no more
            self._validation, self._saved_validation = [], []
        now = capture_random_states(with_cuda=False)
        saved = self._saved_reloads.pop(kind, None)
        generators = find_generators(*_loader_functions(self._trainer))
        if saved is None:
            before = generator_states(generators)
            setup()
            drawn = {path: one for path, one in before.items() if fingerprint(one) != fingerprint(generators[path])}
            self._reloads[kind] = {"epoch": self._trainer.current_epoch, "random": now, "generators": drawn}
            return
        self._reloads[kind] = saved
        restore_random_states(saved["random"])
        set_generator_states(generators, saved["generators"])
        try:
            with at_epoch(self._trainer, saved["epoch"]):
                setup()
        finally:
            restore_random_states(now)

    def _combine(self, combined: CombinedLoader) -> None:
        """Prepare training loaders for whether Lightning reads one batch ahead of the random draws of the model."""
        if self._is_tuning():
            return
        ahead, loaders = reads_ahead(combined), []
        for loader in combined.flattened:
            one = loader
            if ahead and isinstance(loader, CountingLoader) and loader.num_workers == 0:
                one = ReplayedLoader(loader.__dict__[OWN], loader.deferred, self._created)
            if isinstance(one, (CountingLoader, ReplayedLoader)):
                one.reads_ahead = ahead
            loaders.append(one)
        combined.flattened = loaders

    def _training_loaders(self) -> list[CountingLoader | ReplayedLoader]:
        combined = train_loaders(self._trainer)
        found = [] if combined is None else combined.flattened
        return [loader for loader in found if isinstance(loader, (CountingLoader, ReplayedLoader))]

    def _wrap(self, loader: Any) -> Any:
        if self._is_tuning():
            return loader
        if (undo := protect_workers(loader)) is not None:
            self._protected.append(undo)
        training = is_training_stage(self._trainer)
        deferred = self._deferred and training
        counting = count_batches(loader, self._trainer.global_rank, deferred, self._created)
        if training and counting is loader:
            why_not = why_not_replayed(loader)
            if why_not is None:
                own_state = has_state(loader) and not has_unreliable_state(loader)
                kind = StatefulLoader if own_state else ReplayedLoader
                return kind(loader, deferred, self._created)
            self._why_never = why_not
        if training and isinstance(counting, CountingLoader):
            self._find_iterators(counting)
            if counting.num_workers > 0:
                self._find_worker_generators(counting)
        if not training and isinstance(counting, CountingLoader):
            if len(self._validation) < len(self._saved_validation):
                counting.created, state = self._saved_validation[len(self._validation)]
                counting.set_kept_state(state)
            self._validation.append(counting)
        return counting

    def _find_iterators(self, loader: CountingLoader) -> None:
        """Set why a resume is not exact if a sampler or a map-style dataset keeps an iterator."""
        samplers = loader.batch_sampler, loader.sampler
        for what, owners in (("sampler", samplers), ("dataset", (loader.dataset, loader.collate_fn))):
            if find_iterators(*owners, with_datasets=what == "dataset"):
                self._why_never = (
                    f"the {what} keeps an iterator, which starts again in another process; create it in `__iter__`, or "
                    "compute the value from the index or the epoch"
                )

    def _find_worker_generators(self, loader: CountingLoader) -> None:
        """Set why a resume is not exact if worker processes draw from copies of generators that a dataset keeps."""
        # What a file or a class keeps may have been used to create the dataset; whether workers draw is observed.
        kept = sum(path[0].isdigit() for path in find_generators(loader.dataset, loader.collate_fn))
        if not kept:
            return
        generators = "a random generator" if kept == 1 else f"{kept} random generators"
        why = (
            f"the dataset keeps {generators}, and each worker process draws from its own copy; draw from the global "
            "generators of `torch`, `numpy` or `random`, or set `num_workers=0`"
        )
        if loader.persistent_workers:  # their copies continue in the next epoch
            self._why_never = why
        else:
            self._why_epochs_only = why


def _loader_functions(trainer: pl.Trainer) -> list[Any]:
    """Return the functions that create the loaders, and what the objects to which they belong refer to."""
    found: list[Any] = []
    ignored = attributes_of(pl.LightningModule) | attributes_of(pl.LightningDataModule)
    for one in (trainer.lightning_module, trainer.datamodule):  # type: ignore[attr-defined]
        if one is not None:
            found += [getattr(type(one), name) for name in ("train_dataloader", "val_dataloader")]
            found += [value for name, value in vars(one).items() if name not in ignored]
    return found
