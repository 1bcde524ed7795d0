"""Energy and emissions as torchmetrics: one file per metric."""

from lightning_green.metrics.carbon_emitted import CarbonEmitted
from lightning_green.metrics.energy_consumed import EnergyConsumed
from lightning_green.metrics.samples_per_joule import SamplesPerJoule
from lightning_green.metrics.software_carbon_intensity import SoftwareCarbonIntensity

__all__ = ["CarbonEmitted", "EnergyConsumed", "SamplesPerJoule", "SoftwareCarbonIntensity"]
