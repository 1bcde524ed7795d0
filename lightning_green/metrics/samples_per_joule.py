"""Energy efficiency."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_green.metrics.node_metric import NodeMetric
from lightning_green.utilities.validation import check_number


class SamplesPerJoule(NodeMetric):
    """Compute the samples of all ranks per joule of all nodes.

    Args:
        local_rank: Rank of this process on its node; None for ``LOCAL_RANK`` or ``SLURM_LOCALID``.
        kwargs: Arguments of ``torchmetrics.Metric``.

    Examples:
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
        """Add samples of this rank and energy of this node.

        Args:
            samples: Number of samples since the last update.
            joules: Energy since the last update, in J.

        """
        self.samples += check_number("samples", samples)
        if self.counts:
            self.joules += check_number("joules", joules)

    def compute(self) -> Tensor:
        """Return samples per joule, or NaN without energy."""
        return torch.where(self.joules > 0, self.samples / self.joules, torch.nan)
