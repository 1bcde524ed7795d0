"""The part that all scripts share: imports, data, module, faults and reports, as a format string."""

HEAD = '''\
"""Script {index} of seed {seed} by benchmarks/identity.py.

{summary}
"""

import argparse
import hashlib
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

GREEN = os.environ.get("GREEN") != "none"
if GREEN:
    from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume

torch.set_num_threads(1)
TRACE = str(Path(__file__).resolve().with_name("trace.csv"))
FAULTS = json.loads(os.environ.get("FAULTS", "[]"))


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Settings:
    depth: int = 2
    name: str = "small"


def squared(value):
    return value * value


def loaders(part):
    """Return a training and a validation loader of one data set."""
    generator = torch.Generator().manual_seed(100 + part)
    inputs = torch.randn(64, 4, generator=generator)
    data = TensorDataset(inputs, inputs.sum(1, keepdim=True) + 0.1 * torch.randn(64, 1, generator=generator))
    train, validation = torch.utils.data.Subset(data, range(48)), torch.utils.data.Subset(data, range(48, 64))
    return DataLoader(train, batch_size=8, {shuffle}), DataLoader(validation, batch_size=8)


class Regression(pl.LightningModule):
    def __init__(self, {arguments}):
        super().__init__()
        {hparams}
        self.lr = lr{part}
        self.net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), {dropout}nn.Linear(width, 1))
        {initialize}

    def training_step(self, batch, batch_idx):
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        {optimizer}
{dataloaders}

def fault(place, label, step=0):
    """Do what the benchmark asks for at this place; each fault strikes once, in the process that gets there first."""
    for number, (kind, where, who, at) in enumerate(FAULTS):
        if (where, who) != (place, label) or step < at:
            continue
        marker = Path(os.environ["FAULT_DIR"]) / f"fault{{number}}"
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            continue
        if kind == "exception":
            raise RuntimeError(f"injected fault {{number}} at {{place}} of {{label}}")
        if kind in ("sigkill", "sigterm"):
            os.kill(os.getpid(), getattr(signal, kind.upper()))
        until = time.monotonic() + 20.0  # the benchmark kills the supervisor, or every process
        while kind in ("supervisor", "everything") and time.monotonic() < until:
            if marker.with_suffix(".done").exists():
                break
            time.sleep(0.02)


class Probe(pl.Callback):
    """Counts the training steps of one fit in this process."""

    def __init__(self, label):
        self.label, self.steps = label, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps += 1
        fault("batch", self.label, trainer.global_step)


def write(line):
    """Write one result."""
    {write}


def as_hex(metrics):
    return {{name: float(value).hex() for name, value in sorted(metrics.items())}}


def report(label, trainer, module, probe):
    """Write what a script reads after a fit."""
    weights, checkpoint = hashlib.sha256(), trainer.checkpoint_callback
    for name, tensor in module.state_dict().items():
        weights.update(name.encode() + tensor.numpy().tobytes())
    best, score = Path(checkpoint.best_model_path).name, checkpoint.best_model_score
    write(
        {{
            "fit": label,
            "weights": weights.hexdigest(),
            "metrics": as_hex(trainer.callback_metrics),
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "best": [best, None if score is None else float(score).hex()],
            "lr": float(module.lr).hex(),
            "trained_steps": probe.steps,
        }}
    )


'''
