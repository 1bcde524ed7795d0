"""Attributes that hooks change during whole fits, and in the sanity check, which a process that continues skips."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, EarlyStopping, GradientAccumulationScheduler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers.interrupted_fits import assert_continues_exactly, train_part
from tests.helpers.resume_training import digest


class Net(pl.LightningModule):
    """Sixteen batches in four epochs; each case is a way in which hooks change state."""

    beta = 0.0

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(8, 1)
        self.memory = [torch.zeros(8)]
        self.rng = np.random.default_rng(5)

    def on_train_epoch_start(self):
        self.beta = self.current_epoch / 4
        self.dropout.p = 0.3 + 0.1 * self.current_epoch
        if self.current_epoch % 2:
            self.backbone[1].eval()

    def training_step(self, batch, batch_idx):
        features = self.dropout(self.backbone(batch[0]))
        self.memory[0].mul_(0.9).add_(features.detach().mean(0), alpha=0.1)
        noise = float(self.rng.normal())
        penalty = self.beta * self.head.weight.square().sum() + 0.1 * (features * self.memory[0]).mean()
        return self.head(features).square().mean() + penalty * (1 + 0.1 * noise)

    def validation_step(self, batch, batch_idx):
        values = [3.0, 3.1, 3.2, 1.0, 0.9, 0.8]
        self.log("val_loss", values[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.Adam([one for one in self.parameters() if one.requires_grad], 1e-2)


CASES = {
    "attributes": lambda: [],
    "accumulation by epoch": lambda: [GradientAccumulationScheduler({0: 1, 2: 2})],
    "frozen backbone": lambda: [BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3)],
    "stopped early, with a minimum": lambda: [EarlyStopping("val_loss", patience=1)],
}


def train(folder, case, stop=None):
    pl.seed_everything(2, verbose=False)
    data, module = TensorDataset(torch.randn(16, 4)), Net()
    options = {"min_epochs": 4, "max_epochs": 6} if "minimum" in case else {"max_epochs": 4}
    loaders = DataLoader(data, 4, shuffle=True), DataLoader(data, 16)
    part = train_part(folder, module, *loaders, stop=stop, callbacks=CASES[case](), limit_val_batches=1, **options)
    return part, digest([module.state_dict(), module.memory, part.trainer.global_step])


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("stop", [3, 6, 9])
@pytest.mark.parametrize("case", CASES)
def test_stopped_fit_ends_like_an_uninterrupted_one(case, stop, tmp_path):
    assert_continues_exactly(lambda folder, at: train(folder, case, at), tmp_path, stop)


class MaskedNet(Net):
    """Creates a mask when the batch size changes, also in the sanity check, and counts its validations."""

    def __init__(self):
        super().__init__()
        self.size, self.validations, self.sums = -1, 0, [torch.zeros(1)]
        self.register_buffer("mask", None, persistent=False)

    def _scale(self, batch):
        if len(batch) != self.size:
            self.size, self.mask = len(batch), torch.full((1,), float(len(batch)))
        return 1.0 if self.mask is None else self.mask * (1 + self.validations) + self.sums[0]

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * self._scale(batch[0])

    def validation_step(self, batch, batch_idx):
        self.validations += 1
        self.sums[0] += self._scale(batch[0])


@pytest.mark.parametrize("stops", [(3,), (3, 6), (4, 6), (4, 8)])
def test_attributes_that_the_sanity_check_changes_are_restored(stops, tmp_path):
    """A process that continues the fit skips the sanity check."""

    def part(folder, stop):
        pl.seed_everything(2, verbose=False)
        data, module = TensorDataset(torch.randn(16, 4)), MaskedNet()
        options = {"limit_val_batches": 1, "num_sanity_val_steps": 1, "max_epochs": 4, "check_val_every_n_epoch": 2}
        loaders = DataLoader(data, 4, shuffle=True), DataLoader(data, 4)
        ended = train_part(folder, module, *loaders, stop=stop, **options)
        return ended, digest([module.state_dict(), module.size, module.validations, module.sums, module.mask])

    _, expected = part(tmp_path / "straight", None)
    for stop in stops:
        assert part(tmp_path / "stopped", stop)[0].stopped
    assert part(tmp_path / "stopped", None)[1] == expected


class DuringSanityCheck(pl.Callback):
    """Sets a loss weight in the first and in the last hook of the sanity check."""

    def on_sanity_check_start(self, trainer, pl_module):
        pl_module.beta = 0.5

    def on_sanity_check_end(self, trainer, pl_module):
        pl_module.gamma = pl_module.beta


class WeightedNet(pl.LightningModule):
    """Its loss weights come from callbacks, and grow with each validation."""

    beta = gamma = 0.0

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean() * (1 + self.beta) + self.gamma * self.layer.weight.square().sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-1)


def sanity_checked(folder, make, stop, **callbacks):
    """Train a module for three epochs after a sanity check, with a validation at the end of each; return it too."""
    pl.seed_everything(2, verbose=False)
    data, module = TensorDataset(torch.randn(16, 4)), make()
    options = {"limit_val_batches": 1, "num_sanity_val_steps": 1, "max_epochs": 3}
    loaders = DataLoader(data, 4, shuffle=True), DataLoader(data, 4)
    return train_part(folder, module, *loaders, stop=stop, **callbacks, **options), module


@pytest.mark.parametrize("where", ["callbacks", "last"])
def test_attributes_that_hooks_of_the_sanity_check_set_are_restored(where, tmp_path):
    """Of a callback before and after those of this package."""

    def train(folder, stop):
        part, module = sanity_checked(folder, WeightedNet, stop, **{where: [DuringSanityCheck()]})
        return part, digest([module.state_dict(), module.beta, module.gamma])

    assert_continues_exactly(train, tmp_path, 6)


class ValidatedNet(WeightedNet):
    """Resets what the sanity check has recorded in ``on_train_start``, as scripts often do."""

    def __init__(self):
        super().__init__()
        self.best = None

    def on_train_start(self):
        self.best, self.val_losses = 1e9, []

    def training_step(self, batch, batch_idx):
        self.beta = 0.1 * len(self.val_losses)
        return super().training_step(batch, batch_idx)

    def on_validation_start(self):
        if not hasattr(self, "val_losses"):
            self.val_losses = []

    def validation_step(self, batch, batch_idx):
        loss = float(self.layer(batch[0]).square().mean())
        self.best = min(loss, self.best or 1e9)
        self.val_losses.append(loss)


@pytest.mark.parametrize("stop", [6, 8])
def test_attributes_that_the_sanity_check_and_on_train_start_set_are_restored(stop, tmp_path):
    def train(folder, stop):
        part, module = sanity_checked(folder, ValidatedNet, stop)
        assert stop or len(module.val_losses) == 3
        return part, digest([module.state_dict(), module.best, module.val_losses])

    assert_continues_exactly(train, tmp_path, stop)
