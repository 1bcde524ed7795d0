"""Modules whose parameters are created by the first batch."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, is_lazy

from tests.helpers.interrupted_fits import assert_continues_exactly, train_part
from tests.helpers.resume_training import digest
from tests.helpers.trainers import batches


class Net(pl.LightningModule):
    """Its parameters are created before the fit, by a batch in ``setup``, or by the first training batch."""

    def __init__(self, when):
        super().__init__()
        self.when = when
        self.layers = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Dropout(0.3), nn.Linear(4, 1))
        if when == "init":
            self.layers(torch.zeros(2, 32))

    def setup(self, stage):
        if self.when == "setup":
            self.layers(torch.zeros(2, 32))

    def training_step(self, batch, batch_idx):
        return self.layers(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class ScaledNet(Net):
    """Scales by a buffer of the first batch, which no checkpoint contains."""

    def __init__(self):
        super().__init__("init")
        self.register_buffer("scale", UninitializedBuffer(), persistent=False)

    def training_step(self, batch, batch_idx):
        if is_lazy(self.scale):
            self.scale.materialize((32,))
            self.scale.copy_(batch.mean(0))
        return super().training_step(batch / (1 + self.scale), batch_idx)


def train(folder, when, stop=None):
    pl.seed_everything(2, verbose=False)
    module = ScaledNet() if when == "buffer in the first batch" else Net(when)
    part = train_part(folder, module, batches(), stop=stop, max_epochs=2)
    return part, digest(module.state_dict())


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("stop", [1, 6, 8])
@pytest.mark.parametrize("when", ["init", "setup", "first batch", "buffer in the first batch"])
def test_stopped_fit_ends_like_an_uninterrupted_one(when, stop, tmp_path):
    assert_continues_exactly(lambda folder, at: train(folder, when, at), tmp_path, stop)
