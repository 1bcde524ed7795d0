"""Whole fits with data that continues from one epoch to the next are those of an uninterrupted fit after a resume."""

import itertools

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers.interrupted_fits import assert_continues_exactly, train_part
from tests.helpers.resume_training import digest
from tests.helpers.trainers import BoringModel


class Slice:
    """Four batches of an endless stream in each epoch, as forecasting packages train."""

    def __init__(self):
        self.stream = self._endless()

    def _endless(self):
        for number in itertools.count():
            yield torch.rand(2, 32) + number / 10

    def __iter__(self):
        return itertools.islice(self.stream, 4)


class SizedSlice(Slice):
    def __len__(self):
        return 4


@pytest.mark.parametrize("kind", [Slice, SizedSlice])
@pytest.mark.parametrize("stop", [2, 4, 7, 10])
def test_fit_on_slices_of_an_endless_stream_continues_exactly(kind, stop, tmp_path):
    def train(folder, at):
        pl.seed_everything(3, verbose=False)
        module = BoringModel()
        part = train_part(folder, module, kind(), stop=at, max_epochs=3)
        return part, digest(module.state_dict())

    assert_continues_exactly(train, tmp_path, stop)


class EndlessSampler:
    """Indices that continue in the next epoch."""

    def __init__(self):
        self.indices = itertools.cycle(range(12))

    def __iter__(self):
        return itertools.islice(self.indices, 8)

    def __len__(self):
        return 8


def test_sampler_that_keeps_an_iterator_is_neither_paused_nor_saved(tmp_path):
    loader = DataLoader(TensorDataset(torch.randn(12, 32)), 2, sampler=EndlessSampler())
    module = BoringModel()
    module.training_step = lambda batch, batch_idx: {"loss": module.layer(batch[0]).square().mean()}
    part = train_part(tmp_path, module, loader, max_epochs=1)
    assert not part.stopped
    assert not list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
