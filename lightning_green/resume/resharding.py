"""Going on with another number of processes: no longer exact, and only where the user says so."""

from __future__ import annotations

import copy
from typing import Any

from lightning_green.resume.random_states import RandomStream, capture_random_states


def to_world_size(checkpoint: dict[str, Any], key: str, size: int) -> None:
    """Change a checkpoint into one of ``size`` processes, in place.

    The epoch goes on where as many samples have been taken; which ones those were is no longer the same. New processes
    get the state of an old one, and random states of their own.

    Args:
        checkpoint: The checkpoint, with the states of its ranks.
        key: Where those are.
        size: Number of processes now.

    """
    ranks: list[dict[str, Any]] = checkpoint[key]["ranks"]
    before = len(ranks)

    def scaled(batches: int) -> int:
        return batches * before // size

    changed = []
    for rank in range(size):
        own = copy.deepcopy(ranks[rank % before])
        for position in own["loaders"]:
            position["taken"] = scaled(int(position["taken"]))
        if rank >= before:
            with RandomStream(rank):
                own["random"] = capture_random_states(with_cuda=False)
        changed.append(own)
    checkpoint[key]["ranks"] = changed
    current = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    for name, batches in current.items():
        current[name] = scaled(batches)
