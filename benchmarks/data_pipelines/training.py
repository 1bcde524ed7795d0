"""Train one pipeline: `python training.py NAME`, stopped by a SIGTERM after the step in the variable `STOP`."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import signal
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import data_pipelines
from data_pipelines.samples import FEATURES, PIPELINES, Data, X, Y
from lightning_green import EmissionsTracker, ExactResume

EPOCHS = 4


def load_pipelines() -> None:
    """Import the modules that register the pipelines."""
    for module in pkgutil.walk_packages(data_pipelines.__path__, "data_pipelines."):
        if module.name != "data_pipelines.training":
            importlib.import_module(module.name)


def tensors(value: Any) -> list[torch.Tensor]:
    """Return the tensors in a batch."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [one for name in sorted(value) for one in tensors(value[name])]
    if isinstance(value, (list, tuple)):
        return [one for item in value for one in tensors(item)]
    return []


def features(batch: Any) -> torch.Tensor:
    """Return the samples of a batch as one matrix."""
    found = [one for one in tensors(batch) if one.is_floating_point() and one.ndim >= 2]
    return torch.cat([one.reshape(-1, FEATURES) for one in found]).float()


class Net(pl.LightningModule):
    """A small network; its loss depends on all features of all samples."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 1)
        self._data = [data]  # in a list: part of the script, not of the module

    def train_dataloader(self):
        loader = self._data[0].loader
        return loader(self) if callable(loader) else loader

    def val_dataloader(self):
        return self._data[0].validation or DataLoader(TensorDataset(X[:16], Y[:16]), 8)

    def on_train_epoch_start(self):
        self._data[0].epoch_start(self)

    def training_step(self, batch, batch_idx):
        x = features(batch)
        losses = (self.head(self.net(x)).squeeze(1) - x[:, 0]).square()
        loss = losses.mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(x))
        self._data[0].after_step(self, batch, losses.detach())
        numbers = float(x.double().sum()).hex(), float(loss.detach()).hex()
        record("batches", [type(self).__name__, self.current_epoch, batch_idx, *numbers])
        return loss

    def validation_step(self, batch, batch_idx):
        x = features(batch)
        self.log("val_loss", (self.head(self.net(x)).squeeze(1) - x[:, 0]).square().mean(), batch_size=len(x))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class Stop(pl.Callback):
    """Stops the process after a step."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == int(os.environ.get("STOP", "0")):
            signal.raise_signal(signal.SIGTERM)


def record(name: str, line: Any) -> None:
    """Append a line to a file in the working directory."""
    with open(f"{name}.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def digest(module: pl.LightningModule) -> str:
    """Return a digest of weights, buffers and the states of the optimizer."""
    found = hashlib.sha256()
    for one in (*module.state_dict().values(), *tensors(module.optimizers(use_pl_optimizer=False).state_dict())):
        found.update(one.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def main(name: str) -> None:
    torch.set_num_threads(1)
    load_pipelines()
    pl.seed_everything(5, workers=True, verbose=False)
    data = PIPELINES[name]()
    data = data if isinstance(data, Data) else Data(data)
    module = Net(data)
    options: dict[str, Any] = {"max_epochs": EPOCHS, "num_sanity_val_steps": 2, "accelerator": "cpu", "devices": 1}
    options |= {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    green = [EmissionsTracker(meter=100.0), ExactResume(every="5m")]
    trainer = pl.Trainer(**{**options, **data.options}, callbacks=[*green, Stop()])
    trainer.fit(module)
    metrics = {name: float(value).hex() for name, value in sorted(trainer.callback_metrics.items())}
    position = {"epoch": trainer.current_epoch, "step": trainer.global_step}
    record("results", {**position, "weights": digest(module), "metrics": metrics})


if __name__ == "__main__":
    main(sys.argv[1])
