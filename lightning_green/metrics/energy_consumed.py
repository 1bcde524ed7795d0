"""Energy over all nodes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_green.metrics.node_metric import JOULES_PER_KWH, NodeMetric, check_amount


class EnergyConsumed(NodeMetric):
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

    joules: Tensor

    def __init__(self, local_rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(["joules"], local_rank, **kwargs)

    def update(self, joules: float) -> None:
        """Add energy of this node since the last update, in J."""
        if self.counts:
            self.joules += check_amount("joules", joules)

    def compute(self) -> Tensor:
        """Return kWh."""
        return self.joules / JOULES_PER_KWH
