"""The position in a loader that has no indices to count, by replaying it.

An iterable is replayed: it starts again under the random states at the start of its pass, and the batches that the
training has taken are read and dropped. Without workers it draws from a random stream of its own, because a replay does
not include the draws of the model. An iterable that keeps an iterator, such as an endless stream, continues in each
pass where the previous one ended; all its passes are replayed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from lightning_green._lightning.loaders import OWN
from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.object_generators import find_iterators
from lightning_green.resume.pass_record import PassRecord
from lightning_green.resume.pipeline_reasons import CHANGES_OFTEN, why_lost
from lightning_green.resume.pipeline_state import Created, PipelineState
from lightning_green.resume.random_states import (
    RandomStream,
    capture_random_states,
    restore_random_states,
)

_STATE = ("state_dict", "load_state_dict")
_Pass = tuple[dict[str, Any], int, bool]
"""The states at the beginning of a pass, the number of its batches, and whether it reached its end."""


def own_loader(loader: Any) -> Any:
    """Return its argument: what a copy or a pickle of an object that wraps a loader is."""
    return loader


class DeferredIterator:
    """The iterator of a loader whose position is about to be restored; reading from it is an error.

    Args:
        reads_ahead: Whether Lightning tries to read one batch ahead.

    """

    def __init__(self, reads_ahead: bool) -> None:
        self._reads_ahead = reads_ahead

    def __iter__(self) -> DeferredIterator:
        return self

    def __next__(self) -> Any:
        if self._reads_ahead:
            raise StopIteration
        raise RuntimeError("The training loader was read before its position was restored.")


class CountingIterator:
    """An iterator that counts its batches in ``loader.taken``, and sets ``loader.exhausted`` at its end."""

    def __init__(self, iterator: Iterator[Any], loader: Any, taken: int = 0) -> None:
        self._inner, self._loader = iterator, loader
        loader.taken, loader.exhausted = taken, False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # as Lightning does with the iterators of a `DataLoader`, which cannot be copied

    def __iter__(self) -> CountingIterator:
        return self

    def __next__(self) -> Any:
        try:
            batch = next(self._inner)
        except StopIteration:
            self._loader.exhausted = True
            raise
        self._loader.__dict__["taken"] += 1  # without `DataLoader.__setattr__`, for each batch
        return batch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)


class _ReplayingIterator(CountingIterator):
    """A counting iterator with its own random stream; it records changes that do not come from reading."""

    def __init__(
        self, iterator: Iterator[Any], loader: ReplayedLoader, stream: RandomStream | None, record: PassRecord | None
    ) -> None:
        super().__init__(iterator, loader)
        self._stream, self._record, self._number = stream, record, 0

    def __next__(self) -> Any:
        record = self._record
        if record is not None:
            record.before_read(self._number)
        if self._number == 0 and self._stream is None:
            self._loader.before_first_read()
        self._number += 1
        try:
            with self._stream or nullcontext():
                return super().__next__()
        finally:
            if record is not None:
                record.after_read(self._number)


class ReplayedLoader:
    """Replaces a training loader that is not a map-style ``DataLoader``.

    Args:
        inner: The user's loader.
        deferred: Whether a position is about to be restored.
        created: The values of attributes at the creation of the pipelines of a fit.

    Attributes:
        taken: Batches that the training has taken in the current pass.
        exhausted: Whether the current pass has ended.
        deferred: While true, ``iter`` creates no iterator, because a position is about to be restored.
        reads_ahead: Whether Lightning reads one batch ahead of the training.

    """

    def __init__(self, inner: Any, deferred: bool, created: Created | None = None) -> None:
        self.inner, self.deferred, self.taken, self.exhausted = inner, deferred, 0, False
        setattr(self, OWN, inner)
        self.reads_ahead = not has_length(inner)
        self._state_of_objects = PipelineState(*self._owners(), created=created)
        self._record: PassRecord | None = None
        self._began: dict[str, Any] | None = None
        self._resume_from: dict[str, Any] | None = None
        self._continues = bool(find_iterators(*self._owners()))
        self._passes: list[_Pass] = []  # before the current one, of a loader that continues
        self._replays = False
        if has_length(inner):  # an object without a length has no `__len__`
            self.__class__ = type(type(self).__name__, (_Sized, type(self)), {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner" or name in _STATE:  # half of a state is none
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __iter__(self) -> Any:
        if self.deferred:
            return DeferredIterator(self.reads_ahead)
        if self._replays:
            self.replay()
        elif self._continues and self._resume_from is None and self._began is not None:
            self._passes.append((self._began, self.taken, self.exhausted))
        resume, self._resume_from = self._resume_from, None
        if resume is None:
            began = self._states()
            skip, iterator = 0, iter(self.inner)
        else:
            began, skip = resume["began"], int(resume["taken"])
            now = self._state_of_objects.capture(shared=not self._has_workers)
            iterator = self._start(began)
        self._began = began
        taking = self._read(began, iterator)
        random = capture_random_states(with_cuda=False)
        if skip and "first" in began:
            restore_random_states(began["first"])
        for number in range(skip):
            if next(taking, self) is self:
                raise InexactStateError(too_few_batches(number, skip))
        if skip and "first" in began:
            restore_random_states(random)
        if resume is not None and self._has_workers:  # the workers have copies of the state with which they started
            self._state_of_objects.restore(now, shared=False)
        return taking

    def _states(self) -> dict[str, Any]:
        return {
            "random": capture_random_states(with_cuda=False),
            "state": self._state_of_objects.capture(),
            "later": [],
        }

    @property
    def _has_workers(self) -> bool:
        return bool(getattr(self.inner, "num_workers", 0))

    def _start(self, began: dict[str, Any]) -> Iterator[Any]:
        """Start a pass with the states with which it began."""
        now = capture_random_states(with_cuda=False)
        restore_random_states(began["random"])
        self._state_of_objects.restore(began["state"])
        try:
            return iter(self.inner)
        finally:
            restore_random_states(now)

    def _read(self, began: dict[str, Any], iterator: Iterator[Any]) -> _ReplayingIterator:
        self._record = None if self._has_workers else PassRecord(self._state_of_objects, began["later"])
        if self._record is not None:
            began["later"] = self._record.later
            self._record.after_read(0)
        return _ReplayingIterator(iterator, self, None if self._has_workers else stream_of_pass(began), self._record)

    def before_first_read(self) -> None:
        """Note the random states with which a loader starts its workers, if it does so with the first batch."""
        if self._began is not None:
            self._began.setdefault("first", capture_random_states(with_cuda=False))

    def replay(self) -> None:
        """Read the batches of earlier passes after ``resume``, so that what the loader keeps is where they ended."""
        if not self._replays:
            return
        self._replays, after = False, self._state_of_objects.capture()
        for began, taken, exhausted in self._passes:
            replaying = self._read(began, self._start(began))
            for number in range(taken):
                if next(replaying, self) is self:
                    raise InexactStateError(too_few_batches(number, taken))
            if exhausted:
                next(replaying, None)
        self._state_of_objects.restore(after)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return own_loader, (self.inner,)

    def position(self, ahead: int) -> dict[str, Any]:
        """Return the position as plain Python and tensors.

        Args:
            ahead: Batches that were read and not yet trained on.

        """
        if self._record is not None:
            self._record.note_change()
        position: dict[str, Any] = {
            "began": self._began,
            "taken": self.taken - ahead,
            "objects": self._state_of_objects.capture(),
        }
        if self._continues:
            position |= {"passes": self._passes, "read": self.taken, "exhausted": self.exhausted}
        return position

    def resume(self, position: dict[str, Any], at_start: bool) -> None:
        """Make the next ``iter`` continue at a position.

        Args:
            position: The result of ``position``.
            at_start: Whether the next ``iter`` begins a new pass.

        """
        self.deferred = False
        if not at_start and position["began"] is not None:
            if has_length(self.inner) and len(self.inner) < position["taken"]:
                raise InexactStateError(too_few_batches(len(self.inner), position["taken"]))
            self._resume_from = position
        if self._continues:
            self._passes = list(position.get("passes", ()))
            if at_start and position["began"] is not None:
                self._passes.append((position["began"], int(position["read"]), bool(position["exhausted"])))
            self._replays = bool(self._passes)
        self._state_of_objects.restore(position["objects"])

    def set_generators(self, position: dict[str, Any]) -> None:
        """Set the generators to those of a position."""
        self._state_of_objects.restore_generators(position["objects"])

    @property
    def why_epochs_only(self) -> str | None:
        """Why a resume in the middle of an epoch is not exact, as far as it is known; None if it is."""
        return CHANGES_OFTEN if self._record is not None and self._record.changes_often else None

    @property
    def why_never(self) -> str | None:
        """Why no resume is exact, as far as it is known; None if one is."""
        return why_lost(self._state_of_objects)

    def _owners(self) -> list[Any]:
        """Return the objects that yield the samples."""
        loader = self.inner
        if not isinstance(loader, DataLoader):
            return [loader]
        owners = [loader.generator, loader.batch_sampler, loader.sampler, loader.dataset, loader.collate_fn]
        return [*owners, loader] if has_unreliable_state(loader) else owners


class _Sized:
    inner: Any

    def __len__(self) -> int:
        return len(self.inner)


def stream_of_pass(began: dict[str, Any]) -> RandomStream:
    """Return the random stream of a pass of a loader that reads in this process."""
    content = began["random"]["torch"].numpy().tobytes()
    digest = hashlib.blake2b(content, digest_size=8, person=b"stream").digest()
    return RandomStream(int.from_bytes(digest, "little") >> 1)


def too_few_batches(found: int, taken: int) -> str:
    """Return the message about data that has become shorter."""
    return (
        f"The training data yields {found} batches in this epoch now, and the training had already taken {taken} when "
        "it was stopped. Continue with the original data, or start from scratch with `--fresh`."
    )


def has_length(loader: Any) -> bool:
    """Return whether ``len(loader)`` is known."""
    try:
        len(loader)
    except (TypeError, NotImplementedError):
        return False
    return True


def has_state(loader: Any) -> bool:
    """Return whether a loader has a state of its own, from which it continues."""
    return all(callable(getattr(loader, name, None)) for name in _STATE)


def has_unreliable_state(loader: Any) -> bool:
    """Return whether a loader does not continue exactly from its own state, but yields the same batches again.

    After a resume, the next pass of the loaders of litdata and MosaicML continues the pass of the loaded state. The
    state of a loader of ``torchdata.nodes`` does not include the generator of its sampler.
    """
    modules = tuple(kind.__module__ + "." for kind in type(loader).__mro__)
    return any(module.startswith(("litdata.", "streaming.", "torchdata.nodes.")) for module in modules)


def why_not_replayed(loader: Any) -> str | None:
    """Return why the position of a loader cannot be restored and how to fix that; None if it can."""
    if has_state(loader):
        return None
    if isinstance(loader, DataLoader):
        if isinstance(loader.dataset, IterableDataset) and loader.persistent_workers:
            return (
                "an IterableDataset in persistent workers continues with random states of the workers, which cannot be "
                "read; use `persistent_workers=False`, a map-style data set, or a loader with `state_dict`"
            )
        return None
    if iter(loader) is loader:
        return (
            f"{type(loader).__name__} is an iterator that cannot start again; pass an object whose `__iter__` starts "
            "from the beginning, or one with `state_dict` and `load_state_dict`"
        )
    return None
