"""Loaders that are reloaded every few epochs, with other data each time, are those of an uninterrupted fit."""

import lightning.pytorch as pl
import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers.interrupted_fits import train_part
from tests.helpers.resume_training import digest

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
        chosen = SAMPLES[torch.randperm(32)[:16]]
        generator = torch.Generator().manual_seed(self.current_epoch)
        return DataLoader(TensorDataset(chosen), 8, shuffle=True, generator=generator)

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


def train(folder, every, stop=None, net=Net):
    """Train five epochs; return the part, the record of its batches and the weights."""
    RECORD.clear()
    pl.seed_everything(2, verbose=False)
    module = net()
    options = {"max_epochs": 5, "limit_val_batches": 1, "reload_dataloaders_every_n_epochs": every}
    part = train_part(folder, module, stop=stop, **options)
    return part, dict(RECORD), digest(module.state_dict())


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("stop", [1, 4, 8, 13])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_data_is_that_of_the_last_reload(every, stop, tmp_path):
    straight, expected, weights = train(tmp_path / "straight", every)
    first, before, _ = train(tmp_path / "stopped", every, stop)
    second, after, restored = train(tmp_path / "stopped", every)
    assert first.stopped
    assert first.trained + second.trained == straight.trained
    assert before | after == expected
    assert restored == weights


def functions_with_a_generator(kind):
    """Return a module class whose loaders are chosen by a generator that only they draw from."""
    generator = numpy.random.default_rng(3)

    class InClosure(Net):
        def train_dataloader(self):
            return DataLoader(TensorDataset(SAMPLES[generator.permutation(32)[:16]]), 4)

    class InList(Net):
        def __init__(self):
            super().__init__()
            self.functions = [lambda: DataLoader(TensorDataset(SAMPLES[generator.permutation(32)[:16]]), 4)]

        def train_dataloader(self):
            return self.functions[0]()

    return {"closure": InClosure, "list": InList}[kind]


@pytest.mark.parametrize("stop", [2, 9])
@pytest.mark.parametrize("kind", ["closure", "list"])
def test_generator_of_the_function_that_creates_the_loaders_continues(kind, stop, tmp_path):
    straight, expected, weights = train(tmp_path / "straight", 2, net=functions_with_a_generator(kind))
    first, before, _ = train(tmp_path / "stopped", 2, stop, functions_with_a_generator(kind))
    second, after, restored = train(tmp_path / "stopped", 2, net=functions_with_a_generator(kind))
    assert first.stopped
    assert first.trained + second.trained == straight.trained
    assert before | after == expected
    assert restored == weights
