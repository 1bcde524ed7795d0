"""Loaders that are reloaded every few epochs, with other data each time, are those of an uninterrupted fit."""

import os
import signal

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import ExactResume
from tests.helpers.resume_training import CLOCK, digest, quiet
from tests.helpers.trainers import quiet_trainer

RECORD = {}  # the batches of one process; an attribute would be restored
SAMPLES = torch.randn(32, 4, generator=torch.Generator().manual_seed(7))


class Net(pl.LightningModule):
    """The training data grows with the epoch; all data is chosen at random."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Linear(4, 1))

    def train_dataloader(self):
        chosen = torch.randperm(32)[: 12 + 4 * self.current_epoch]
        return DataLoader(TensorDataset(SAMPLES[chosen]), 4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(SAMPLES[torch.randperm(32)[:8]]), 8)

    def training_step(self, batch, batch_idx):
        RECORD[self.current_epoch, batch_idx] = digest(batch)
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        RECORD[self.current_epoch, "validation"] = digest(batch)
        self.log("val_loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


class StopAfter(pl.Callback):
    """Asks for a stop after that many optimizer steps, as a signal does."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


def train(folder, every, stop, monkeypatch):
    """Train five epochs; return the record of the batches of this process and the weights."""
    RECORD.clear()
    with quiet():
        monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(folder / "run"))
        monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
        monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", CLOCK)
        pl.seed_everything(2, verbose=False)
        options = {"max_epochs": 5, "limit_val_batches": 1, "enable_checkpointing": True}
        options["reload_dataloaders_every_n_epochs"] = every
        trainer, module = quiet_trainer(folder, ExactResume(), StopAfter(stop), **options), Net()
        try:
            trainer.fit(module)
        except (SystemExit, KeyboardInterrupt):
            return dict(RECORD), None
        return dict(RECORD), digest(module.state_dict())


@pytest.mark.parametrize("stop", [1, 4, 8, 13])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_data_is_that_of_the_last_reload(every, stop, tmp_path, monkeypatch):
    straight, weights = train(tmp_path / "straight", every, None, monkeypatch)
    before, none = train(tmp_path / "stopped", every, stop, monkeypatch)
    after, restored = train(tmp_path / "stopped", every, None, monkeypatch)
    assert none is None
    assert 0 < len(after) < len(straight), "the second process continued"
    assert before | after == straight
    assert restored == weights
