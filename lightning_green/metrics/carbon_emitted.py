"""Emissions over all nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_green.metrics.energy_consumed import JOULES_PER_KWH, check_amount, counts_here


class CarbonEmitted(Metric):
    """Operational emissions in gCO2e: the sum of energy x PUE x carbon intensity, each at its time.

    Args:
        pue: Power usage effectiveness, at least 1.
        local_rank: See :class:`~lightning_green.metrics.EnergyConsumed`.
        kwargs: See ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``pue`` is below 1.

    Example::

        >>> metric = CarbonEmitted()
        >>> metric.update(joules=3.6e6, intensity=400.0)
        >>> metric.update(joules=3.6e6, intensity=100.0)
        >>> float(metric.compute())
        500.0

    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    grams: Tensor

    def __init__(self, pue: float = 1.0, local_rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1.0 <= pue < float("inf"):
            raise ValueError(f"`pue` should be a number of 1 or more, got {pue!r}.")
        self.pue, self.counts = float(pue), counts_here(local_rank)
        self.add_state("grams", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, joules: float, intensity: float) -> None:
        """Add energy of this node since the last update, in J, at a mean intensity in gCO2e/kWh."""
        if self.counts:
            energy = check_amount("joules", joules) / JOULES_PER_KWH
            self.grams += energy * self.pue * check_amount("intensity", intensity)

    def compute(self) -> Tensor:
        """Return gCO2e."""
        return self.grams.clone()
