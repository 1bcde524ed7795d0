"""The position in a map-style ``DataLoader``, by counting batches.

A ``DataLoader`` has no position, but its order is a function of the random states at which its sampler began. These
states are saved together with the number of batches that the training has taken since. A resume sets the states, skips
that many index lists without loading a sample, and continues from there. The order is that of the unwrapped loader, so
an uninterrupted run does not change.

Random augmentation inside worker processes depends on the worker that loads a batch, which skipping would change. With
workers, each batch is therefore loaded under a seed of its own, derived from the sampler's random states and the
position of the batch.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
)
from torch.utils.data._utils import fetch

from lightning_green._lightning.loaders import OWN
from lightning_green._lightning.replaced import replace_method
from lightning_green.resume.counting_sampler import CountingSampler, Seeded
from lightning_green.resume.iterable_loaders import (
    CountingIterator,
    DeferredIterator,
    has_length,
    own_loader,
)
from lightning_green.resume.object_walk import wrapped_datasets
from lightning_green.resume.pipeline_reasons import (
    CHANGES_OFTEN,
    OWN_BATCHES,
    READ_IN_A_THREAD,
    SHARED_WITH_WORKERS,
    in_workers,
    why_lost,
)
from lightning_green.resume.pipeline_state import Created, PipelineState
from lightning_green.resume.random_states import (
    capture_random_states,
    restore_random_states,
    seed_random_states,
)
from lightning_green.resume.worker_signals import workers_are_threads
from lightning_green.resume.worker_state import Observed, WorkerObserver


class _SeedEachBatch:
    """A ``worker_init_fn`` that makes this worker load every batch under its seed, and then calls the user's own.

    It also observes whether loading changes a state that this worker has for itself.
    """

    def __init__(self, inner: Callable[[int], None] | None, observed: Observed) -> None:
        self.inner, self.observed = inner, observed

    def __call__(self, worker_id: int) -> None:
        # Patched in this worker process only: the data set and `collate_fn` remain the user's own objects.
        original, observer = fetch._MapDatasetFetcher.fetch, WorkerObserver(self.observed)

        def fetch_seeded(fetcher: Any, item: Any) -> Any:
            if not isinstance(item, Seeded):
                return original(fetcher, item)  # type: ignore[no-untyped-call]
            seed_random_states(item.seed)
            with observer.observing(fetcher.dataset, fetcher.collate_fn):
                return original(fetcher, item.index)  # type: ignore[no-untyped-call]

        fetch._MapDatasetFetcher.fetch = fetch_seeded  # type: ignore[method-assign]
        if self.inner is not None:
            self.inner(worker_id)


class _ComparingIterator(CountingIterator):
    """A counting iterator that compares its batches with those that the ``DataLoader`` has read."""

    def __init__(self, iterator: Iterator[Any], loader: CountingLoader, taken: int) -> None:
        super().__init__(iterator, loader, taken)
        self._first = taken

    def __next__(self) -> Any:
        batch = super().__next__()
        self._loader.compare_taken(self._first)
        return batch


class CountingLoader(DataLoader[Any]):
    """A mixin that ``count_batches`` adds to the class of a copy of the user's loader.

    Attributes:
        taken: Batches that the training has taken in the current pass.
        exhausted: Whether the current pass has ended.
        created: Whether the run has created a persistent iterator.
        deferred: While true, ``iter`` creates no iterator, because a position is about to be restored.
        reads_ahead: Whether Lightning reads one batch ahead of the training.

    """

    taken: int
    exhausted: bool
    created: bool
    deferred: bool
    reads_ahead: bool
    _counting_sampler: CountingSampler
    _resume_from: tuple[dict[str, Any], int] | None
    _data: PipelineState
    _forked: dict[str, Any] | None  # the state of the dataset with which the workers of this pass started
    _start_with: dict[str, Any] | None  # the same, of the process before
    _observed: Observed | None
    _has_own_iter: bool  # the class of the user's loader, not that of PyTorch, defines `__iter__`
    _reading: weakref.ref[Any] | None  # the iterator of PyTorch in this pass, which ends its workers when it is deleted
    _yields_own_batches: bool

    def __iter__(self) -> Any:
        if self.deferred:
            return DeferredIterator(self.reads_ahead)
        sampler, start, self._resume_from = self._counting_sampler, self._resume_from, None
        sampler.resume_from, sampler.thread = start, threading.get_ident()
        kind = _ComparingIterator if self._has_own_iter else CountingIterator
        return kind(super().__iter__(), self, start[1] if start else 0)

    def _get_iterator(self) -> Any:
        # An `__iter__` that is a generator calls this with its first batch, after a resume restored the random states.
        resumed = self._counting_sampler.resume_from is not None
        random = capture_random_states(with_cuda=False) if resumed and self._has_own_iter else None
        try:
            iterator = self._start_iterator(resumed)
        finally:
            if random is not None:
                restore_random_states(random)
        self.created = True
        if self._has_own_iter:
            self._reading = weakref.ref(iterator)
        return iterator

    def _start_iterator(self, resumed: bool) -> Any:
        forked = self._start_with if resumed or (self.persistent_workers and self.created) else None
        with self._as_forked(forked if self.num_workers > 0 else None):
            if self.num_workers > 0 and forked is None:
                self._forked = self._data.capture(shared=False)
            if not (self.persistent_workers and self.created):
                return super()._get_iterator()
            # An uninterrupted run would have created this iterator, and drawn the seed of its workers, earlier.
            own, self.generator = self.generator, torch.Generator()
            try:
                return super()._get_iterator()
            finally:
                self.generator = own

    def compare_taken(self, first: int) -> None:
        """Note whether a loader with an ``__iter__`` of its own yields other batches than ``DataLoader`` reads.

        Args:
            first: Batches that were taken before this process continued the pass.

        """
        read = None if self._reading is None else getattr(self._reading(), "_num_yielded", None)
        self._yields_own_batches |= read is not None and read != self.taken - first

    @contextmanager
    def _as_forked(self, forked: dict[str, Any] | None) -> Iterator[None]:
        """Let workers that start in this context get the dataset as it was when those of the pass started."""
        if forked is None:
            yield
            return
        now = self._data.capture()
        self._data.restore(forked, shared=False)
        self._forked = forked
        try:
            yield
        finally:
            self._data.restore(now)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return own_loader, (self.__dict__[OWN],)

    def position(self, ahead: int) -> dict[str, Any]:
        """Return the position as plain Python and tensors.

        Args:
            ahead: Batches that were read and not yet trained on.

        """
        self._counting_sampler.record.note_change()
        return {
            "began": self._counting_sampler.began,
            "taken": self.taken - ahead,
            "created": self.created,
            "forked": self._forked,
            **self.kept_state(),
        }

    def kept_state(self) -> dict[str, Any]:
        """Return the state of the loader, its samplers and its dataset."""
        return {"state": self._counting_sampler.state.capture(), "data": self._data.capture()}

    def set_kept_state(self, saved: dict[str, Any]) -> None:
        """Set the result of ``kept_state``; it belongs to the user's loader as well."""
        self._counting_sampler.state.restore(saved["state"])
        self._data.restore(saved["data"])

    def set_generators(self, position: dict[str, Any]) -> None:
        """Set the generators to those of a position."""
        self._counting_sampler.state.restore_generators(position["state"])
        self._data.restore_generators(position["data"])

    def resume(self, position: dict[str, Any], at_start: bool) -> None:
        """Make the next ``iter`` continue at a position.

        Args:
            position: The result of ``position``.
            at_start: Whether the next ``iter`` begins a new pass.

        """
        self.deferred = False
        self.created, self._start_with = bool(position["created"]), position["forked"]
        self.set_kept_state(position)
        if not at_start and position["began"] is not None:
            self._resume_from = (position["began"], int(position["taken"]))

    @property
    def why_epochs_only(self) -> str | None:
        """Why a resume in the middle of an epoch is not exact, as far as it is known."""
        if self._counting_sampler.is_in_other_thread:
            return READ_IN_A_THREAD
        if self._yields_own_batches or (self.taken > 0 and self._counting_sampler.began is None):
            return OWN_BATCHES
        record = self._counting_sampler.record
        if record.changes_often or (self.num_workers > 0 and (record.later or record.is_changed)):
            return CHANGES_OFTEN  # workers read ahead of the changes
        if self.num_workers > 0 and self._data.changes_shared_memory:
            return SHARED_WITH_WORKERS
        found = self._observed.text() if self._observed is not None and not self.persistent_workers else ""
        return in_workers(found) if found else None

    @property
    def why_never(self) -> str | None:
        """Why no resume is exact, as far as it is known."""
        if self._observed is not None and self.persistent_workers and (found := self._observed.text()):
            return in_workers(found)
        return why_lost(self._counting_sampler.state, self._data)


def count_batches(loader: Any, rank: int, deferred: bool, created: Created | None = None) -> Any:
    """Return a copy of a map-style ``DataLoader`` whose position can be saved and restored.

    Other objects are returned unchanged: iterables, loaders with a ``state_dict``, and loaders without a length and
    without workers, which Lightning reads one batch ahead of the random draws of the model.

    Args:
        loader: The user's loader, after Lightning has set its samplers.
        rank: Global rank, so that the random augmentation of two ranks differs.
        deferred: Whether a position is about to be restored.
        created: The values of attributes at the creation of the pipelines of a fit.

    """
    if (
        not isinstance(loader, DataLoader)
        or isinstance(loader, CountingLoader)
        or isinstance(loader.dataset, IterableDataset)
        or hasattr(loader, "state_dict")
        or (loader.num_workers == 0 and not has_length(loader))
    ):
        return loader
    # A loader refuses to replace its sampler, and calling the constructor of a user's subclass again may fail. The copy
    # shares the attributes of the user's loader, and its sampler is set in `__dict__`.
    attributes = dict(loader.__dict__)
    which = "batch_sampler" if loader.batch_sampler is not None else "sampler"
    created, inner = created or Created(), getattr(loader, which)
    owners, datasets = (loader.generator, inner), wrapped_datasets(loader.dataset)
    state = PipelineState(*owners, with_datasets=False, without=datasets, created=created)
    has_processes = loader.num_workers > 0 and not workers_are_threads(loader)
    sampler = CountingSampler(inner, rank, has_processes, state)
    attributes["_data"] = PipelineState(loader.dataset, loader.collate_fn, created=created)
    attributes.update(_forked=None, _start_with=None, _observed=Observed() if has_processes else None)
    has_own_iter = type(loader).__iter__ is not DataLoader.__iter__
    attributes.update(_has_own_iter=has_own_iter, _resume_from=None, _reading=None, _yields_own_batches=False)
    attributes[which] = attributes["_counting_sampler"] = sampler
    attributes.update(taken=0, exhausted=False, created=False, deferred=deferred, _iterator=None)
    attributes["reads_ahead"] = not has_length(loader)
    attributes[OWN] = loader
    if has_processes:
        attributes["worker_init_fn"] = _SeedEachBatch(loader.worker_init_fn, attributes["_observed"])
    kind: Any = type(type(loader).__name__, (CountingLoader, type(loader)), {})
    copy = kind.__new__(kind)
    copy.__dict__.update(attributes)
    return copy


def wrap_loaders(strategy: Any, wrap: Callable[[Any], Any]) -> Callable[[], None]:
    """Pass every loader of a strategy's ``process_dataloader`` through ``wrap``; return a function that undoes it.

    Lightning calls it after it has set distributed samplers and before ``iter``.
    """
    original = strategy.process_dataloader
    return replace_method(strategy, "process_dataloader", lambda loader: wrap(original(loader)))
