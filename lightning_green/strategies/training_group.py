"""The control group of a Trainer."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_green._lightning.process import process_group_store, process_group_timeout
from lightning_green.strategies.control_group import ControlGroup, TrainingGroup
from lightning_green.utilities.clock import Clock


def control_group_of(trainer: pl.Trainer, clock: Clock) -> ControlGroup:
    """Return the control group of all ranks of a Trainer; all of them call it together, in ``setup``."""
    device, timeout = trainer.strategy.root_device, process_group_timeout(trainer)
    store = process_group_store()
    group = TrainingGroup(device, store=store) if timeout is None else TrainingGroup(device, timeout, store)
    return ControlGroup(trainer.global_rank, trainer.world_size, clock, group)
