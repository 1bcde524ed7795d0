"""Continuing with another number of ranks: approximate, and only if the user allows it."""

from __future__ import annotations

import copy
from typing import Any

from lightning_green.resume.random_states import RandomStream, capture_random_states


def change_world_size(checkpoint: dict[str, Any], key: str, size: int) -> None:
    """Convert a checkpoint to ``size`` ranks, in place.

    The epoch continues after the same number of samples, but not the same samples. New ranks get the state of an old
    rank, with other random states.

    Args:
        checkpoint: The checkpoint with the states of its ranks.
        key: Key of these states in the checkpoint.
        size: Number of ranks.

    """
    ranks: list[dict[str, Any]] = checkpoint[key]["ranks"]
    before = len(ranks)

    def scaled(batches: int) -> int:
        return batches * before // size

    changed = []
    for rank in range(size):
        own = copy.deepcopy(ranks[rank % before])
        own["parts"] = [part for part in own["parts"] if part[0][0] == "callbacks"]  # not the positions of loops
        own["removed"] = [keys for keys in own["removed"] if keys[0] == "callbacks"]
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
