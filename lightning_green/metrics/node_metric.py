"""What the metrics of energy have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import Module
from torchmetrics import Metric
from typing_extensions import override

JOULES_PER_KWH = 3.6e6


class NodeMetric(Metric):
    """Base of the metrics whose sums are of whole nodes: local rank 0 counts for its node.

    The sums keep double precision whatever the module around them is moved to: float32 holds seven digits, so a joule
    would vanish in the total of a long run, and bfloat16 holds two.

    Args:
        sums: Names of the sums.
        local_rank: Rank of this process on its node; None for the environment (``LOCAL_RANK``, ``SLURM_LOCALID``).
        kwargs: See ``torchmetrics.Metric``.

    """

    is_differentiable = False
    higher_is_better: bool | None = False
    full_state_update = False

    def __init__(self, sums: Sequence[str], local_rank: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.counts = counts_here(local_rank)
        for name in sums:
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    @override
    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> Module:
        # torchmetrics guards `half()` and the like against a change of precision, but not `to(torch.bfloat16)`, which
        # is what Lightning's true precisions do
        kept = {name: getattr(self, name) for name in self._defaults}
        moved = super()._apply(fn, exclude_state)
        for name, value in kept.items():
            device = getattr(self, name).device
            precision = torch.float32 if device.type == "mps" else torch.float64  # that one has no double precision
            setattr(self, name, value.to(device, precision))
            self._defaults[name] = torch.zeros((), dtype=precision, device=device)
        return moved


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
