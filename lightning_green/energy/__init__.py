"""Energy meters: the contract, the registry, and one file per source."""

from lightning_green.energy.auto import AutoMeter
from lightning_green.energy.carbontracker import CarbonTrackerMeter
from lightning_green.energy.codecarbon import CodeCarbonMeter
from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.http_json import HttpJsonMeter
from lightning_green.energy.meter import Component, Energy, Meter, Quality
from lightning_green.energy.none import NoMeter
from lightning_green.energy.nvml import NvmlMeter
from lightning_green.energy.prometheus import PrometheusMeter
from lightning_green.energy.rapl import RaplMeter
from lightning_green.energy.registry import build_meter
from lightning_green.energy.slurm import SlurmMeter

__all__ = [
    "AutoMeter",
    "CarbonTrackerMeter",
    "CodeCarbonMeter",
    "Component",
    "ConstantPowerMeter",
    "Energy",
    "HttpJsonMeter",
    "Meter",
    "NoMeter",
    "NvmlMeter",
    "PrometheusMeter",
    "Quality",
    "RaplMeter",
    "SlurmMeter",
    "build_meter",
]
