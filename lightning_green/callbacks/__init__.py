"""Callbacks for ``Trainer(callbacks=[...])``."""

from lightning_green.callbacks.carbon_scheduler import CarbonScheduler
from lightning_green.callbacks.emissions_tracker import EmissionsTracker
from lightning_green.callbacks.energy_budget import EnergyBudget
from lightning_green.callbacks.energy_early_stopping import EnergyEarlyStopping
from lightning_green.callbacks.exact_resume import ExactResume
from lightning_green.run.first_states import begin_process

__all__ = ["CarbonScheduler", "EmissionsTracker", "EnergyBudget", "EnergyEarlyStopping", "ExactResume"]

begin_process()  # now, because a script may split its data at random before it creates a callback
