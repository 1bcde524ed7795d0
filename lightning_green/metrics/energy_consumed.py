"""Energy over all nodes."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

JOULES_PER_KWH = 3.6e6


class EnergyConsumed(Metric):
    """Energy in kWh, summed over nodes and counted once a node.

    A meter sees its whole node, so only local rank 0 of each node counts what it is given (``LOCAL_RANK``, or
    ``SLURM_LOCALID``; a process without either is alone on its node).

    Args:
        local_rank: Rank of this process on its node; None for the environment.
        kwargs: See ``torchmetrics.Metric``.

    Example::

        >>> metric = EnergyConsumed()
        >>> metric.update(joules=3.6e6)
        >>> float(metric.compute())
        1.0

    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    joules: Tensor

    def __init__(self, local_rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.counts = counts_here(local_rank)
        # float32 holds seven digits: a joule would vanish in the total of a long run
        self.add_state("joules", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, joules: float) -> None:
        """Add energy of this node since the last update, in J."""
        if self.counts:
            self.joules += check_amount("joules", joules)

    def compute(self) -> Tensor:
        """Return kWh."""
        return self.joules / JOULES_PER_KWH


def counts_here(local_rank: int | None) -> bool:
    """Return whether this process counts for its node."""
    if local_rank is None:
        found = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
        local_rank = int(found) if found.isdigit() else 0
    return local_rank == 0


def check_amount(name: str, value: float) -> float:
    """Return ``value`` as a float.

    Raises:
        ValueError: If it is negative or not finite.

    """
    number = float(value)
    if not 0.0 <= number < float("inf"):
        raise ValueError(f"`{name}` should be finite and 0 or more, got {value!r}.")
    return number
