"""A Trainer that runs a small model on the CPU and prints nothing."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader


def quiet_trainer(folder, *callbacks, **options):
    """Return a Trainer for one epoch on the CPU, without a logger, checkpoints and progress bar."""
    settings = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": folder,
        "callbacks": list(callbacks),
    }
    return pl.Trainer(**settings | options)


def batches(samples=12, batch_size=2, **options):
    """Return a loader of samples for a ``BoringModel``; sample ``i`` is filled with ``i``."""
    data = torch.arange(float(samples))[:, None].expand(samples, 32).contiguous()
    return DataLoader(data, batch_size, **options)


class RecordingModel(BoringModel):
    """A ``BoringModel`` that records the samples of each training batch in ``seen``."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append([int(sample[0]) for sample in batch])
        return super().training_step(batch, batch_idx)
