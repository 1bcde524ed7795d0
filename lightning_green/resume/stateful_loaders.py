"""The position in a loader with ``state_dict`` and ``load_state_dict``, which it restores itself.

Its state seldom includes random numbers. Samples that are read in this process therefore draw from a random stream,
whose state is saved with that of the loader. Draws in worker processes cannot be continued in the middle of an epoch;
whether there are any is observed.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from inspect import isgeneratorfunction
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data._utils import fetch
from typing_extensions import override

from lightning_green.resume.iterable_loaders import CountingIterator, DeferredIterator, ReplayedLoader, stream_of_pass
from lightning_green.resume.object_walk import find
from lightning_green.resume.pipeline_reasons import in_workers, why_lost
from lightning_green.resume.pipeline_state import Created
from lightning_green.resume.random_states import RandomStream, capture_random_states, equal_states, global_states
from lightning_green.resume.worker_state import Observed, WorkerObserver


class _ObserveDraws:
    """A ``worker_init_fn`` that observes whether reading draws random numbers, and calls the user's own.

    Args:
        inner: The user's own.
        drew: A tensor in shared memory, set to one by a batch that draws.
        changed: Receives the state of the dataset that a batch changes, if the state of the loader does not include it.

    """

    def __init__(self, inner: Callable[[int], None] | None, drew: torch.Tensor, changed: Observed | None) -> None:
        self.inner, self.drew, self.changed = inner, drew, changed

    def __call__(self, worker_id: int) -> None:
        for kind in (fetch._MapDatasetFetcher, fetch._IterableDatasetFetcher):  # patched in this worker process only
            kind.fetch = self._observed(kind.fetch)  # type: ignore[method-assign]
        if self.inner is not None:
            self.inner(worker_id)

    def _observed(self, original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        observer = None if self.changed is None else WorkerObserver(self.changed)

        def observed(fetcher: Any, index: Any) -> Any:
            if observer is not None:
                with observer.observing(fetcher.dataset, fetcher.collate_fn):
                    return observe_draws(fetcher, index)
            return observe_draws(fetcher, index)

        def observe_draws(fetcher: Any, index: Any) -> Any:
            if self.drew.item():
                return original(fetcher, index)
            before = global_states()
            batch = original(fetcher, index)
            if not equal_states(before, global_states()):
                self.drew.fill_(1)
            return batch

        return observed


class _StatefulIterator(CountingIterator):
    """A counting iterator with a random stream; it observes draws, and can keep the state one batch back."""

    def __init__(
        self, iterator: Iterator[Any], loader: StatefulLoader, stream: RandomStream | None, taken: int
    ) -> None:
        super().__init__(iterator, loader, taken)
        self._stream, self._first = stream, True

    def __next__(self) -> Any:
        loader = self._loader
        with self._stream or nullcontext():
            if loader.reads_ahead:
                loader.keep_state(self._stream)
            if self._first:  # which may also start the workers, choose an order and skip to the position
                self._first = False
                with loader.observing(), loader.epochs_of_pass():
                    return super().__next__()
            if self._stream is None or loader.draws:
                return super().__next__()
            before = global_states()
            batch = super().__next__()
            loader.draws = not equal_states(before, global_states())
            return batch


class StatefulLoader(ReplayedLoader):
    """Replaces a training loader that has a state of its own.

    Attributes:
        draws: Whether reading a batch in this process draws random numbers.

    """

    def __init__(self, inner: Any, deferred: bool, created: Created | None = None) -> None:
        super().__init__(inner, deferred, created)
        self.draws = self._restored = False
        self._stream: RandomStream | None = None
        self._before: dict[str, Any] = {}
        self._drew: torch.Tensor | None = None
        self._changed: Observed | None = None
        self._created_as = self._state_of_objects.mark()
        self._hugging_face = _hugging_face_streams(getattr(inner, "dataset", None))
        self._has_shuffle_buffer = any(_has_shuffle_buffer(one) for one in self._hugging_face)
        if isinstance(inner, DataLoader) and inner.num_workers > 0 and not self._reads_again():
            self._drew = torch.zeros(1, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
            self._changed = Observed() if self._owners() else None

    @override
    def __iter__(self) -> Any:
        if self.deferred:
            return DeferredIterator(self.reads_ahead)
        resume, self._resume_from = self._resume_from, None
        if resume is None:
            began = {"random": capture_random_states(with_cuda=False), "objects": self._state_of_objects.capture()}
        else:
            began = resume["began"]
            if self._skips_by_reading():
                self._state_of_objects.restore(began["objects"])
        self._began = began
        self._stream = stream_of_pass(began) if self._has_stream() else None
        if resume is None and self._restored:
            self._forget_state_of_dataset()
        epochs = nullcontext() if resume is None else self.epochs_of_pass()
        with self._stream or nullcontext(), self.observing(), epochs:
            iterator = iter(self.inner)
        if resume is not None and self._stream is not None:
            self.draws = bool(resume["draws"])
            # An iterator that restores its position with its first batch draws what it drew at the start of the pass.
            if self.draws or not isinstance(iterator, types.GeneratorType):
                self._stream.restart(resume["random"])
        return _StatefulIterator(iterator, self, self._stream, 0 if resume is None else int(resume["taken"]))

    def state_dict(self) -> Any:
        """Return the state of the user's loader, which Lightning adds to the checkpoints of the script."""
        return self.inner.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Set the state of the user's loader, for a fit from a checkpoint of the script."""
        self.inner.load_state_dict(state)

    @property
    @override
    def why_epochs_only(self) -> str | None:
        """Why a resume in the middle of an epoch is not exact, as far as it is known."""
        name = type(self.inner).__name__
        if self._has_shuffle_buffer:
            return (
                "the state of a dataset of Hugging Face does not include its shuffle buffer; shuffle before "
                "`to_iterable_dataset()`, or use a `DataLoader` without a state"
            )
        if self._drew is not None and self._drew.item():
            return (
                f"the samples of {name} draw random numbers in its worker processes, which its state does not include; "
                "set `num_workers=0`, or use a `DataLoader` without a state"
            )
        if self._changed is not None and (found := self._changed.text()):
            return in_workers(found)
        if isinstance(self.inner, DataLoader) and self._is_lazy() and self._state_of_objects.mark() != self._created_as:
            return (
                f"the dataset of {name} keeps a state that its samples change, and it may read batches again when it "
                "continues; use a `DataLoader` without a state, or `StatefulDataLoader` of torchdata"
            )
        if self.draws and isinstance(self.inner, DataLoader) and self._is_lazy():
            return (
                f"the samples of {name} draw random numbers, and it may read batches again when it continues from its "
                "state; use a `DataLoader` without a state, or `StatefulDataLoader` of torchdata"
            )
        return None

    @property
    @override
    def why_never(self) -> str | None:
        """Why no resume is exact, as far as it is known."""
        lost = why_lost(self._state_of_objects)
        if lost is not None or not getattr(self.inner, "persistent_workers", False):
            return lost
        return self.why_epochs_only  # the random states of persistent workers continue in the next epoch

    @override
    def position(self, ahead: int) -> dict[str, Any]:
        kept = self._before if ahead else self._state(self._stream)
        return {**super().position(ahead), "draws": self.draws, "epochs": self._epochs(), **kept}

    def keep_state(self, stream: RandomStream | None) -> None:
        """Keep the state before a batch is read ahead; inside the random stream."""
        random = None if stream is None else capture_random_states(with_cuda=False)
        self._before = {"state": self.inner.state_dict(), "random": random}

    def _state(self, stream: RandomStream | None) -> dict[str, Any]:
        return {"state": self.inner.state_dict(), "random": None if stream is None else stream.capture()}

    @override
    def resume(self, position: dict[str, Any], at_start: bool) -> None:
        self._set_epochs(position.get("epochs", ()))
        self.inner.load_state_dict(position["state"])
        self._restored = True
        if at_start and hasattr(self.inner, "next_iter_state"):
            iter(self.inner)  # `StatefulDataLoader` continues the pass of its state, whose batches have been taken
        super().resume(position, at_start)

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Let workers that are started in this context observe their draws."""
        if self._drew is None:
            yield
            return
        own = self.inner.worker_init_fn
        self.inner.worker_init_fn = _ObserveDraws(own, self._drew, self._changed)
        try:
            yield
        finally:
            self.inner.worker_init_fn = own

    @contextmanager
    def epochs_of_pass(self) -> Iterator[None]:
        """Set the epochs with which this pass began, for its first read; a stream ignores a state of another epoch."""
        assert self._began is not None
        now = self._epochs()
        self._set_epochs(self._began.setdefault("epochs", now))
        try:
            yield
        finally:
            self._set_epochs(now)

    def _epochs(self) -> list[int]:
        return [int(one.epoch) for one in self._hugging_face]

    def _set_epochs(self, epochs: Sequence[int]) -> None:
        for stream, epoch in zip(self._hugging_face, epochs, strict=False):
            if stream.epoch != epoch:
                stream.set_epoch(epoch)

    @override
    def _owners(self) -> list[Any]:
        loader = self.inner
        if not isinstance(loader, DataLoader) or hasattr(loader.dataset, "state_dict"):
            return []  # its state includes them
        return [loader.dataset, loader.collate_fn]

    def _skips_by_reading(self) -> bool:
        """Return whether a resumed pass reads the batches again that the training has taken."""
        return self._is_lazy() or isinstance(getattr(self.inner, "dataset", None), IterableDataset)

    def _forget_state_of_dataset(self) -> None:
        """Let a dataset of Hugging Face begin its next pass at the start; it begins each at its last loaded state."""
        for stream in self._hugging_face:
            stream.load_state_dict({})

    def _is_lazy(self) -> bool:
        return isgeneratorfunction(type(self.inner).__iter__)

    def _reads_again(self) -> bool:
        """Return whether workers read a dataset again from the start of the pass, under the seeds of that time."""
        loader = self.inner
        has_state = hasattr(loader.dataset, "state_dict")
        return hasattr(loader, "next_iter_state") and isinstance(loader.dataset, IterableDataset) and not has_state

    def _has_stream(self) -> bool:
        loader = self.inner
        if not isinstance(loader, DataLoader):
            return True
        if loader.num_workers > 0:
            return False
        # A loader that skips indices reads no sample to continue, so it draws as the plain loader does.
        return self.reads_ahead or self._is_lazy() or isinstance(loader.dataset, IterableDataset)


def _hugging_face_streams(dataset: Any) -> list[Any]:
    """Return each ``IterableDataset`` of Hugging Face in a dataset that has a state."""
    if not (isinstance(dataset, IterableDataset) and hasattr(dataset, "state_dict")):
        return []
    return list(find(_is_hugging_face_stream, dataset).values())


def _is_hugging_face_stream(value: Any) -> bool:
    is_iterable = isinstance(value, IterableDataset)
    return is_iterable and any(kind.__module__.startswith("datasets.") for kind in type(value).__mro__)


def _has_shuffle_buffer(stream: Any) -> bool:
    """Return whether a step of a stream of Hugging Face shuffles with a buffer."""
    waiting, seen = [stream._ex_iterable], set[int]()
    while waiting:
        step = waiting.pop()
        if id(step) in seen or not type(step).__module__.startswith("datasets."):
            continue
        if "BufferShuffled" in type(step).__name__:
            return True
        seen.add(id(step))
        for value in vars(step).values():
            waiting += value if isinstance(value, list) else [value]
    return False
