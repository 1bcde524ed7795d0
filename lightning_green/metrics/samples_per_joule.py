"""How far a joule goes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_green.metrics.node_metric import NodeMetric, check_amount


class SamplesPerJoule(NodeMetric):
    """Samples of all ranks per joule of all nodes; NaN before there is any energy.

    Args:
        local_rank: See :class:`~lightning_green.metrics.EnergyConsumed`.
        kwargs: See ``torchmetrics.Metric``.

    Example::

        >>> metric = SamplesPerJoule()
        >>> metric.update(samples=64, joules=32.0)
        >>> float(metric.compute())
        2.0

    """

    higher_is_better = True

    samples: Tensor
    joules: Tensor

    def __init__(self, local_rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(["samples", "joules"], local_rank, **kwargs)

    def update(self, samples: int, joules: float) -> None:
        """Add samples of this rank and energy of this node since the last update, in J."""
        self.samples += check_amount("samples", samples)
        if self.counts:
            self.joules += check_amount("joules", joules)

    def compute(self) -> Tensor:
        """Return samples per joule."""
        return torch.where(self.joules > 0, self.samples / self.joules, torch.nan)
