"""The processes and devices of one training, as Lightning's launcher and accelerator set them up."""

from __future__ import annotations

import os
import signal

import lightning.pytorch as pl
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from lightning_green._lightning.namespaces import both


def early_global_rank(trainer: pl.Trainer) -> int:
    """Return the global rank, also in spawned processes whose strategy does not have it yet."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, both(_MultiProcessingLauncher)):
        return trainer.node_rank * trainer.num_devices + trainer.local_rank
    return trainer.global_rank


def stop_other_ranks(trainer: pl.Trainer) -> None:
    """Stop the processes that Lightning started for the other ranks, if there are any."""
    launcher = trainer.strategy.launcher
    if launcher is not None:
        launcher.kill(int(signal.SIGTERM))


def gpus_of_job(trainer: pl.Trainer) -> list[str] | None:
    """Return the GPUs of this node that the Trainer uses, as ``CUDA_VISIBLE_DEVICES`` names them; None without GPUs."""
    if trainer.strategy.root_device.type != "cuda":
        return None
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return [visible[index] if visible else str(index) for index in trainer.device_ids]
