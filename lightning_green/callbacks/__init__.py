"""Callbacks for ``Trainer(callbacks=[...])``."""

from lightning_green.callbacks.carbon_scheduler import CarbonScheduler
from lightning_green.callbacks.emissions_tracker import EmissionsTracker
from lightning_green.callbacks.exact_resume import ExactResume

__all__ = ["CarbonScheduler", "EmissionsTracker", "ExactResume"]
