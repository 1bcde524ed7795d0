"""Whether all ranks of a training have the same callbacks; those of one rank alone would wait for the others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import lightning.pytorch as pl

from lightning_green._lightning.process import after_environment, process_group_store, stop_other_ranks

_numbers = itertools.count()
_NONE = "no callback that saves states"


class SameCallbacks:
    """Compares the callbacks of the ranks of one fit.

    Each rank writes its callbacks to the store of the process group before the barrier that precedes ``setup``. In
    ``setup`` those of all ranks are known, also of a rank that has none.

    Args:
        trainer: The trainer, before its process group exists.
        names: Names of the callbacks that communicate with those of other ranks.

    """

    def __init__(self, trainer: pl.Trainer, names: Sequence[str]) -> None:
        self._trainer, self._names = trainer, ", ".join(sorted(names))
        self._number = next(_numbers) if names and trainer.world_size > 1 else None
        if self._number is not None:
            after_environment(trainer, self._write)

    def _write(self) -> None:
        store = process_group_store()
        if store is not None:
            store.set(self._key(self._trainer.global_rank), self._names)
            store.get(self._key(self._trainer.global_rank))  # returns once it is written

    def check(self) -> None:
        """Compare the callbacks of all ranks, in ``setup``.

        Raises:
            ValueError: If they differ.

        """
        store = None if self._number is None else process_group_store()
        if store is None:
            return
        keys = [self._key(rank) for rank in range(self._trainer.world_size)]
        if store.check(keys):
            found = [str(text, "utf-8") for text in store.multi_get(keys)]
        else:
            found = [str(store.get(key), "utf-8") if store.check([key]) else _NONE for key in keys]
        own = self._trainer.global_rank
        other = next((rank for rank, names in enumerate(found) if names != self._names), None)
        if other is not None:
            stop_other_ranks(self._trainer)
            raise ValueError(
                f"Every rank should have the same callbacks, and rank {own} has {found[own]}, rank {other} has "
                f"{found[other]}. Add the callbacks on all ranks."
            )

    def _key(self, rank: int) -> str:
        return f"lightning_green/callbacks/{self._number}/{rank}"
