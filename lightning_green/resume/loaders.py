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

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data._utils import fetch
from torch.utils.data.distributed import DistributedSampler

from lightning_green._lightning.loaders import OWN
from lightning_green._lightning.replaced import replace_method
from lightning_green.resume.iterable_loaders import CountingIterator, DeferredIterator, has_length, own_loader
from lightning_green.resume.kept_attributes import KeptAttributes
from lightning_green.resume.object_generators import (
    Generator,
    find_generators,
    generator_states,
    set_generator_states,
)
from lightning_green.resume.random_states import (
    RandomStream,
    capture_random_states,
    restore_random_states,
    seed_random_states,
)

# These samplers read the global random state once, before their first index. Others get a random stream of their own.
_DRAWS_ONCE = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)


class _Seeded(NamedTuple):
    """The indices of a batch (or one index), and the seed under which a worker loads them."""

    seed: int
    index: Any


def _fetch_seeded(original: Callable[[Any, Any], Any], fetcher: Any, item: Any) -> Any:
    if isinstance(item, _Seeded):
        seed_random_states(item.seed)
        item = item.index
    return original(fetcher, item)


class _SeedEachBatch:
    """A ``worker_init_fn`` that makes this worker load every batch under its seed, and then calls the user's own."""

    def __init__(self, inner: Callable[[int], None] | None) -> None:
        self.inner = inner

    def __call__(self, worker_id: int) -> None:
        # Patched in this worker process only: the data set and `collate_fn` remain the user's own objects.
        original = fetch._MapDatasetFetcher.fetch
        fetch._MapDatasetFetcher.fetch = (  # type: ignore[method-assign]
            lambda fetcher, item: _fetch_seeded(original, fetcher, item)
        )
        if self.inner is not None:
            self.inner(worker_id)


def _seed(*key: Any) -> int:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class _CountingSampler:
    """Replaces a loader's batch sampler (or its sampler, without automatic batching)."""

    def __init__(self, inner: Any, rank: int, seed_batches: bool) -> None:
        self.inner, self.rank, self.seed_batches = inner, rank, seed_batches
        base = getattr(inner, "sampler", None)
        self.is_plain_batching = type(inner) is BatchSampler and type(base) in _DRAWS_ONCE
        self.draws_once = self.is_plain_batching or type(inner) in _DRAWS_ONCE
        self.began: dict[str, Any] | None = None  # random states at the start of the current pass
        self.resume_from: tuple[dict[str, Any], int] | None = None
        self.kept = KeptAttributes(inner, base)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Any]:
        return self._pass(self.resume_from)  # an iterator with workers calls it twice

    def _pass(self, resume_from: tuple[dict[str, Any], int] | None) -> Iterator[Any]:
        if resume_from is not None:
            began, start = resume_from
        else:
            generators = generator_states(self._generators())
            random = capture_random_states(with_cuda=False)
            began, start = {"random": random, "generators": generators, "kept": self.kept.changed()}, 0
        self.began = began
        # indices are skipped, so that no sample is loaded twice
        indices = self._indices(began) if resume_from is None else self._skip_to(start, began)
        base = _seed(began["random"]["torch"].numpy().tobytes(), self.rank) if self.seed_batches else 0
        for position, index in enumerate(indices, start):
            yield _Seeded(_seed(base, position), index) if self.seed_batches else index

    def _generators(self) -> dict[str, Generator]:
        return find_generators(self.inner, with_datasets=False)

    def _indices(self, began: dict[str, Any]) -> Iterator[Any]:
        return iter(self.inner) if self.draws_once else _iterate_in_own_stream(self.inner, began["random"])

    def _skip_to(self, start: int, began: dict[str, Any]) -> Iterator[Any]:
        set_generator_states(self._generators(), began["generators"])
        self.kept.restore(began["kept"])
        if not self.draws_once:
            return itertools.islice(self._indices(began), start, None)
        if self.is_plain_batching:  # skipping single indices is ten times faster than skipping lists of them
            flat = itertools.islice(iter(self.inner.sampler), start * self.inner.batch_size, None)
            indices = iter(BatchSampler(flat, self.inner.batch_size, self.inner.drop_last))
        else:
            indices = itertools.islice(iter(self.inner), start, None)
        now = capture_random_states(with_cuda=False)
        restore_random_states(began["random"])
        try:
            first = list(itertools.islice(indices, 1))  # the sampler draws here
        finally:
            restore_random_states(now)
        return itertools.chain(first, indices)


def _iterate_in_own_stream(sampler: Any, began: dict[str, Any]) -> Iterator[Any]:
    """Iterate in a separate random stream, so that the dropout of the model does not depend on the sampler's draws."""
    stream, indices = RandomStream(_seed(began["torch"].numpy().tobytes(), "sampler")), None
    while True:
        try:
            with stream:
                if indices is None:
                    indices = iter(sampler)
                index = next(indices)
        except StopIteration:
            return
        yield index


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
    _counting_sampler: _CountingSampler

    def __iter__(self) -> Any:
        if self.deferred:
            return DeferredIterator(self.reads_ahead)
        start = self._counting_sampler.resume_from
        first = self.persistent_workers and self._iterator is None
        if first and self.created:
            # An uninterrupted run would have created this iterator, and drawn the seed of its workers, earlier.
            own, self.generator = self.generator, torch.Generator()
            try:
                iterator = super().__iter__()
            finally:
                self.generator = own
        else:
            iterator = super().__iter__()
        self.created, self._counting_sampler.resume_from = True, None  # also if no batch of this pass is read
        return CountingIterator(iterator, self, start[1] if start else 0)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return own_loader, (self.__dict__[OWN],)

    def position(self, ahead: int) -> dict[str, Any]:
        """Return the position as plain Python and tensors.

        Args:
            ahead: Batches that were read and not yet trained on.

        """
        return {
            "began": self._counting_sampler.began,
            "taken": self.taken - ahead,
            "created": self.created,
            "generators": self.generator_states(),
            "kept": self._counting_sampler.kept.changed(),
        }

    def resume(self, position: dict[str, Any], at_start: bool) -> None:
        """Make the next ``iter`` continue at a position.

        Args:
            position: The result of ``position``.
            at_start: Whether the next ``iter`` begins a new pass.

        """
        self.deferred = False
        self.created = bool(position["created"])
        self.set_generators(position["generators"])
        self._counting_sampler.kept.restore(position["kept"])
        if not at_start and position["began"] is not None:
            self._counting_sampler.resume_from = (position["began"], int(position["taken"]))

    def generator_states(self) -> dict[str, Any]:
        """Return the states of the generators that the loader, its samplers and its dataset draw from."""
        return generator_states(self._own_generators())

    def set_generators(self, states: dict[str, Any]) -> None:
        """Set the generators to the result of ``generator_states``; they belong to the user's loader as well."""
        set_generator_states(self._own_generators(), states)

    def _own_generators(self) -> dict[str, Generator]:
        owners = (self.generator, self._counting_sampler.inner)
        if self.num_workers == 0:  # each worker process has copies of the others
            return find_generators(*owners, self.dataset, self.collate_fn)
        return find_generators(*owners, with_datasets=False)


def count_batches(loader: Any, rank: int, deferred: bool) -> Any:
    """Return a copy of a map-style ``DataLoader`` whose position can be saved and restored.

    Other objects are returned unchanged: iterables, loaders with a ``state_dict``, and loaders without a length and
    without workers, which Lightning reads one batch ahead of the random draws of the model.

    Args:
        loader: The user's loader, after Lightning has set its samplers.
        rank: Global rank, so that the random augmentation of two ranks differs.
        deferred: Whether a position is about to be restored.

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
    sampler = _CountingSampler(getattr(loader, which), rank, seed_batches=loader.num_workers > 0)
    attributes[which] = attributes["_counting_sampler"] = sampler
    attributes.update(taken=0, exhausted=False, created=False, deferred=deferred, _iterator=None)
    attributes["reads_ahead"] = not has_length(loader)
    attributes[OWN] = loader
    if loader.num_workers > 0:
        attributes["worker_init_fn"] = _SeedEachBatch(loader.worker_init_fn)
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
