"""Precision plugins: what goes into ``Trainer(plugins=[...])``."""

from lightning_green.precision.fsdp import GreenFSDPPrecision
from lightning_green.precision.mixed import GreenMixedPrecision

__all__ = ["GreenFSDPPrecision", "GreenMixedPrecision"]
