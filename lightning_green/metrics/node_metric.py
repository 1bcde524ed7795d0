"""Base class of the metrics of energy."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import Module
from torchmetrics import Metric
from typing_extensions import override


class NodeMetric(Metric):
    """Base class of the metrics whose states are sums over nodes. The process with local rank 0 counts for its node.

    The states keep double precision when the module is converted to another precision. In float32, with seven digits,
    a joule would be lost in the total of a long run.

    Args:
        sums: Names of the states.
        local_rank: Rank of this process on its node; None for ``LOCAL_RANK`` or ``SLURM_LOCALID``, or 0 if neither is
            set.
        kwargs: Arguments of ``torchmetrics.Metric``.

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
        # torchmetrics ignores `half()` and similar calls, but not `to(torch.bfloat16)`, which Lightning's true
        # precision plugins call.
        kept = {name: getattr(self, name) for name in self._defaults}
        moved = super()._apply(fn, exclude_state)
        for name, value in kept.items():
            device = getattr(self, name).device
            precision = torch.float32 if device.type == "mps" else torch.float64  # MPS has no double precision
            setattr(self, name, value.to(device, precision))
            self._defaults[name] = torch.zeros((), dtype=precision, device=device)
        return moved


def counts_here(local_rank: int | None) -> bool:
    """Return whether this process has local rank 0, and so counts for its node."""
    if local_rank is None:
        found = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
        local_rank = int(found) if found.isdigit() else 0
    return local_rank == 0
