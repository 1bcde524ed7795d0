"""The position in a loader that cannot be counted by indices: by its own state, or by reading it anew.

A loader with ``state_dict`` and ``load_state_dict`` tells where it is. Any other iterable is begun anew under the
random states at which its pass began, and as many batches are read and dropped as the training has taken. Without
workers it draws from a random stream of its own: when it is replayed, the model's draws do not lie in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_green.resume.random_states import (
    RandomStream,
    capture_random_states,
    restore_random_states,
)

_HIDDEN = ("state_dict", "load_state_dict")


class NotYet:
    """The iterator of a loader whose position is about to be restored: nothing may be read from it.

    Args:
        is_sized: Whether the loader has a length. Where it has none, Lightning tries to read one batch ahead.

    """

    def __init__(self, is_sized: bool) -> None:
        self._is_sized = is_sized

    def __iter__(self) -> NotYet:
        return self

    def __next__(self) -> Any:
        if not self._is_sized:
            raise StopIteration
        raise RuntimeError("The training loader was read before its position was restored.")


class Counted:
    """An iterator that counts in ``loader.taken`` what is taken from it."""

    def __init__(self, iterator: Iterator[Any], loader: Any, taken: int = 0) -> None:
        self._inner, self._loader = iterator, loader
        loader.taken = taken

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> Any:
        batch = next(self._inner)
        self._loader.taken += 1
        return batch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)


class _Taking(Counted):
    """The same with a random stream of its own, which keeps a loader's own state one batch back."""

    def __init__(self, iterator: Iterator[Any], loader: ReplayedLoader, stream: RandomStream | None) -> None:
        super().__init__(iterator, loader)
        self._stream = stream

    def __next__(self) -> Any:
        with self._stream or nullcontext():
            if self._loader.reads_ahead:
                self._loader.keep_state()
            return super().__next__()


class ReplayedLoader:
    """Stands for a training loader that is not a map-style ``DataLoader``.

    Args:
        inner: The user's loader.
        deferred: Whether a position is about to be restored.

    Attributes:
        taken: Batches that were taken in the current pass.
        deferred: While true, ``iter`` makes nothing.
        reads_ahead: Whether Lightning reads one batch ahead of the training from a loader with a state of its own.

    """

    def __init__(self, inner: Any, deferred: bool) -> None:
        self.inner, self.deferred, self.taken = inner, deferred, 0
        self.is_stateful = all(callable(getattr(inner, name, None)) for name in _HIDDEN)
        self.is_sized = has_length(inner)
        self.reads_ahead = self.is_stateful and not self.is_sized
        self._before: dict[str, Any] = {}
        self._random: dict[str, Any] | None = None
        self._began: dict[str, Any] | None = None
        self._resume_from: tuple[dict[str, Any], int] | None = None
        if self.is_sized:
            self.__class__ = _SizedReplayedLoader

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner" or name in _HIDDEN:  # Lightning would restore the state again
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __iter__(self) -> Any:
        if self.deferred:
            return NotYet(self.is_sized)
        resume, self._resume_from = self._resume_from, None
        if resume is None:
            generators = [generator.get_state() for generator in self._generators()]
            began: dict[str, Any] = {"random": capture_random_states(with_cuda=False), "generators": generators}
            skip = 0
            iterator = iter(self.inner)
        else:
            began, skip = resume
            now = capture_random_states(with_cuda=False)
            restore_random_states(began["random"])
            for generator, state in zip(self._generators(), began["generators"], strict=True):
                generator.set_state(state)
            try:
                iterator = iter(self.inner)
            finally:
                restore_random_states(now)
        self._began = began
        taking = _Taking(iterator, self, self._stream(began))
        for _ in range(skip):
            next(taking)
        return taking

    def position(self, ahead: int) -> dict[str, Any]:
        """Return where the loader is, as plain Python and tensors.

        Args:
            ahead: Batches that were read and not yet trained on.

        """
        position: dict[str, Any] = {"began": self._began, "taken": self.taken - ahead}
        if self.is_stateful:
            position |= self._before if ahead else {"state": self.inner.state_dict()}
        return position

    def keep_state(self) -> None:
        """Keep where the loader is before a batch is read ahead; inside the random stream that it reads with."""
        self._before = {"state": self.inner.state_dict(), "random": capture_random_states(with_cuda=False)}

    def resume(self, position: dict[str, Any], at_start: bool) -> None:
        """Have the next ``iter`` go on at ``position``; where a new pass begins (``at_start``), from its start."""
        self.deferred = False
        if self.is_stateful:
            self.inner.load_state_dict(position["state"])
            self._random = position.get("random")
        elif not at_start and position["began"] is not None:
            self._resume_from = (position["began"], int(position["taken"]))

    def _generators(self) -> list[torch.Generator]:
        own = getattr(self.inner, "generator", None)
        return [own] if isinstance(own, torch.Generator) else []

    def _stream(self, began: dict[str, Any]) -> RandomStream | None:
        """Return the random stream of a loader that reads in this process, None where the model's is as good."""
        if (self.is_stateful and self.is_sized) or getattr(self.inner, "num_workers", 0) > 0:
            return None
        if self._random is not None:
            saved, self._random = self._random, None
            return RandomStream(saved)
        content = began["random"]["torch"].numpy().tobytes()
        digest = hashlib.blake2b(content, digest_size=8, person=b"stream").digest()
        return RandomStream(int.from_bytes(digest, "little") >> 1)


class _SizedReplayedLoader(ReplayedLoader):
    def __len__(self) -> int:
        return len(self.inner)


def has_length(loader: Any) -> bool:
    """Return whether ``len(loader)`` is known."""
    try:
        len(loader)
    except (TypeError, NotImplementedError):
        return False
    return True


def why_not_replayed(loader: Any) -> str | None:
    """Return why a loader's position cannot be found again, and what to do about it; None where it can."""
    if all(callable(getattr(loader, name, None)) for name in _HIDDEN):
        return None
    if isinstance(loader, DataLoader):
        if isinstance(loader.dataset, IterableDataset) and loader.persistent_workers:
            return (
                "an IterableDataset in persistent workers goes on with random states that nobody outside can read; use "
                "`persistent_workers=False`, a map-style data set, or a loader with `state_dict`"
            )
        return None
    if iter(loader) is loader:
        return (
            f"{type(loader).__name__} is an iterator that cannot be begun anew; give an object whose `__iter__` begins "
            "from the start, or with `state_dict` and `load_state_dict`"
        )
    return None
