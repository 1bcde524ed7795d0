"""Software Carbon Intensity (SCI)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_green.metrics.node_metric import NodeMetric
from lightning_green.utilities.units import JOULES_PER_KWH
from lightning_green.utilities.validation import check_number


class SoftwareCarbonIntensity(NodeMetric):
    """Compute the Software Carbon Intensity in gCO2e per functional unit (ISO/IEC 21031:2024).

    SCI = (E x I + M) / R, with the energy E in kWh, the location-based carbon intensity I in gCO2e/kWh, the embodied
    emissions M = TE x TS x RS in gCO2e, and the number of functional units R.

    Args:
        embodied_g: TE: embodied emissions of the hardware of one node, in gCO2e.
        lifetime_hours: Expected lifetime of the hardware in hours. TS is the reserved time divided by it.
        share: RS: fraction of the hardware that is reserved for the job, in [0, 1].
        local_rank: Rank of this process on its node; None for ``LOCAL_RANK`` or ``SLURM_LOCALID``.
        kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> metric = SoftwareCarbonIntensity(embodied_g=150_000, lifetime_hours=35_000)
        >>> metric.update(units=1000, joules=3.6e6, intensity=300.0, seconds=3600.0)
        >>> round(float(metric.compute()), 4)
        0.3043

    """

    grams: Tensor
    units: Tensor

    def __init__(
        self,
        embodied_g: float = 0.0,
        lifetime_hours: float = 4 * 365.25 * 24,
        share: float = 1.0,
        local_rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(["grams", "units"], local_rank, **kwargs)
        self.embodied_g = check_number("embodied_g", embodied_g)
        self.lifetime_hours = check_number("lifetime_hours", lifetime_hours, above_low=True, unit="h")
        self.share = check_number("share", share, high=1.0)

    def update(self, units: float, joules: float, intensity: float, seconds: float) -> None:
        """Add functional units of this rank and energy of this node since the last update.

        Args:
            units: Number of functional units, such as samples.
            joules: Energy in J.
            intensity: Mean carbon intensity in gCO2e/kWh.
            seconds: Time for which the hardware was reserved, in s.

        """
        self.units += check_number("units", units)
        if self.counts:
            operational = check_number("joules", joules) / JOULES_PER_KWH * check_number("intensity", intensity)
            hours = check_number("seconds", seconds) / 3600.0
            self.grams += operational + self.embodied_g * hours / self.lifetime_hours * self.share

    def compute(self) -> Tensor:
        """Return gCO2e per functional unit, or NaN without functional units."""
        return torch.where(self.units > 0, self.grams / self.units, torch.nan)
