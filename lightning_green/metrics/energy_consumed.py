"""Energy of all nodes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_green.metrics.node_metric import NodeMetric
from lightning_green.utilities.units import JOULES_PER_KWH
from lightning_green.utilities.validation import check_number


class EnergyConsumed(NodeMetric):
    """Compute the energy of all nodes in kWh.

    A meter measures a whole node, so only the process with local rank 0 counts its updates.

    Args:
        local_rank: Rank of this process on its node; None for ``LOCAL_RANK`` or ``SLURM_LOCALID``, or 0 if neither is
            set.
        kwargs: Arguments of ``torchmetrics.Metric``.

    Examples:
        >>> metric = EnergyConsumed()
        >>> metric.update(joules=3.6e6)
        >>> float(metric.compute())
        1.0

    """

    joules: Tensor

    def __init__(self, local_rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(["joules"], local_rank, **kwargs)

    def update(self, joules: float) -> None:
        """Add energy of this node.

        Args:
            joules: Energy since the last update, in J.

        """
        if self.counts:
            self.joules += check_number("joules", joules)

    def compute(self) -> Tensor:
        """Return the energy in kWh."""
        return self.joules / JOULES_PER_KWH
