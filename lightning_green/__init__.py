"""Carbon-aware training for PyTorch Lightning."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_green.callbacks import (
        CarbonScheduler,
        EmissionsTracker,
        EnergyBudget,
        EnergyEarlyStopping,
        ExactResume,
    )
    from lightning_green.callbacks.distillation import KnowledgeDistillation
    from lightning_green.callbacks.pruning import Pruning
    from lightning_green.callbacks.quantization import QuantizationAwareTraining
    from lightning_green.metrics import CarbonEmitted, EnergyConsumed, SamplesPerJoule, SoftwareCarbonIntensity
    from lightning_green.precision import GreenFSDPPrecision, GreenMixedPrecision
    from lightning_green.strategies import GreenDDPStrategy
    from lightning_green.supervisor.launchers import RunPausedExit
    from lightning_green.utilities.clock import SimulatedClock, SystemClock

__version__ = "0.1.0"

_WHERE = {
    "CarbonEmitted": "lightning_green.metrics",
    "CarbonScheduler": "lightning_green.callbacks",
    "EmissionsTracker": "lightning_green.callbacks",
    "EnergyBudget": "lightning_green.callbacks",
    "EnergyEarlyStopping": "lightning_green.callbacks",
    "EnergyConsumed": "lightning_green.metrics",
    "ExactResume": "lightning_green.callbacks",
    "GreenDDPStrategy": "lightning_green.strategies",
    "GreenFSDPPrecision": "lightning_green.precision.fsdp",
    "GreenMixedPrecision": "lightning_green.precision.mixed",
    "KnowledgeDistillation": "lightning_green.callbacks.distillation",
    "Pruning": "lightning_green.callbacks.pruning",
    "QuantizationAwareTraining": "lightning_green.callbacks.quantization",
    "RunPausedExit": "lightning_green.supervisor.launchers",
    "SamplesPerJoule": "lightning_green.metrics",
    "SimulatedClock": "lightning_green.utilities.clock",
    "SoftwareCarbonIntensity": "lightning_green.metrics",
    "SystemClock": "lightning_green.utilities.clock",
}

__all__ = [
    "CarbonEmitted",
    "CarbonScheduler",
    "EmissionsTracker",
    "EnergyBudget",
    "EnergyConsumed",
    "EnergyEarlyStopping",
    "ExactResume",
    "GreenDDPStrategy",
    "GreenFSDPPrecision",
    "GreenMixedPrecision",
    "KnowledgeDistillation",
    "Pruning",
    "QuantizationAwareTraining",
    "RunPausedExit",
    "SamplesPerJoule",
    "SimulatedClock",
    "SoftwareCarbonIntensity",
    "SystemClock",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:  # imported when asked for: `import lightning_green` stays cheap
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


if hasattr(sys.modules.get("lightning.pytorch"), "Trainer"):
    importlib.import_module("lightning_green.strategies")  # registers `Trainer(strategy="ddp_green")`
