"""Emissions of all nodes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_green.metrics.node_metric import NodeMetric
from lightning_green.utilities.units import JOULES_PER_KWH
from lightning_green.utilities.validation import check_number


class CarbonEmitted(NodeMetric):
    """Compute operational emissions in gCO2e: the sum of energy times PUE times carbon intensity.

    Args:
        pue: Power usage effectiveness, at least 1.
        local_rank: Rank of this process on its node; None for ``LOCAL_RANK`` or ``SLURM_LOCALID``.
        kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``pue`` is below 1.

    Examples:
        >>> metric = CarbonEmitted()
        >>> metric.update(joules=3.6e6, intensity=400.0)
        >>> metric.update(joules=3.6e6, intensity=100.0)
        >>> float(metric.compute())
        500.0

    """

    grams: Tensor

    def __init__(self, pue: float = 1.0, local_rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(["grams"], local_rank, **kwargs)
        self.pue = check_number("pue", pue, 1.0)

    def update(self, joules: float, intensity: float) -> None:
        """Add energy of this node.

        Args:
            joules: Energy since the last update, in J.
            intensity: Mean carbon intensity over that time, in gCO2e/kWh.

        """
        if self.counts:
            energy = check_number("joules", joules) / JOULES_PER_KWH
            self.grams += energy * self.pue * check_number("intensity", intensity)

    def compute(self) -> Tensor:
        """Return the emissions in gCO2e."""
        return self.grams.clone()
