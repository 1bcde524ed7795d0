"""The sampler of a counted loader: it records the states at which a pass begins, and skips to a position."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.iterable_loaders import (
    too_few_batches,
)
from lightning_green.resume.object_generators import generator_states, set_generator_states
from lightning_green.resume.pass_record import PassRecord
from lightning_green.resume.pipeline_state import PipelineState
from lightning_green.resume.random_states import (
    RandomStream,
    capture_random_states,
    restore_random_states,
)

# These samplers read the global random state once, before their first index. Others get a random stream of their own.
_DRAWS_ONCE = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)


class Seeded(NamedTuple):
    """The indices of a batch (or one index), and the seed under which a worker loads them."""

    seed: int
    index: Any


def _seed(*key: Any) -> int:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class CountingSampler:
    """Replaces a loader's batch sampler (or its sampler, without automatic batching)."""

    def __init__(self, inner: Any, rank: int, seed_batches: bool, state: PipelineState) -> None:
        self.inner, self.rank, self.seed_batches, self.state = inner, rank, seed_batches, state
        base = getattr(inner, "sampler", None)
        self.is_plain_batching = type(inner) is BatchSampler and type(base) in _DRAWS_ONCE
        self.draws_once = self.is_plain_batching or type(inner) in _DRAWS_ONCE
        self.began: dict[str, Any] | None = None  # random states at the start of the current pass
        self.resume_from: tuple[dict[str, Any], int] | None = None
        self.record = PassRecord(state)
        self.thread, self.is_in_other_thread = 0, False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Any]:
        return self._pass(self.resume_from)  # an iterator with workers calls it twice, also in a pass that it resumes

    def _pass(self, resume_from: tuple[dict[str, Any], int] | None) -> Iterator[Any]:
        if resume_from is not None:
            began, start = resume_from
            self.record = PassRecord(self.state, began["later"])
            began["later"] = self.record.later  # with the changes of this process
        else:
            self.record = PassRecord(self.state)
            random, state = capture_random_states(with_cuda=False), self.state.capture()
            began, start = {"random": random, "state": state, "later": self.record.later}, 0
        self.began = began
        # indices are skipped, so that no sample is loaded twice
        indices = self._indices(began) if resume_from is None else self._skip_to(start, began)
        base = _seed(began["random"]["torch"].numpy().tobytes(), self.rank) if self.seed_batches else 0
        for position, index in enumerate(indices, start):
            self.is_in_other_thread |= threading.get_ident() != self.thread
            yield Seeded(_seed(base, position), index) if self.seed_batches else index

    def _indices(self, began: dict[str, Any]) -> Iterator[Any]:
        if self.draws_once:
            return iter(self.inner)
        return _recorded(_iterate_in_own_stream(self.inner, began["random"]), self.record)

    def _skip_to(self, start: int, began: dict[str, Any]) -> Iterator[Any]:
        now = self.state.capture() if self.draws_once else None
        self.state.restore(began["state"])
        if now is None:
            indices = self._indices(began)
            for number in range(start):
                if next(indices, self) is self:
                    raise InexactStateError(too_few_batches(number, start))
            return indices
        if self.is_plain_batching:  # skipping single indices is ten times faster than skipping lists of them
            flat = itertools.islice(iter(self.inner.sampler), start * self.inner.batch_size, None)
            indices = iter(BatchSampler(flat, self.inner.batch_size, self.inner.drop_last))
        else:
            indices = itertools.islice(iter(self.inner), start, None)
        random = capture_random_states(with_cuda=False)
        restore_random_states(began["random"])
        try:
            first = list(itertools.islice(indices, 1))  # the sampler draws here
        finally:
            restore_random_states(random)
        generators = self.state.generators()
        after = generator_states(generators)
        self.state.restore(now)  # such as weights that the training has written since
        set_generator_states(generators, after)
        return itertools.chain(first, indices)


def _recorded(indices: Iterator[Any], record: PassRecord) -> Iterator[Any]:
    """Yield indices, and record the changes of the sampler's state that do not come from reading them."""
    for number in itertools.count():
        record.before_read(number)
        index = next(indices, None)
        record.after_read(number + 1)
        if index is None:
            record.before_read(number + 1)  # workers read ahead: the training may have changed something since the end
            return
        yield index


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
