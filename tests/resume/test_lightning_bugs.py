"""Bugs of Lightning that a resume works around. A test fails once a bug is fixed and names the obsolete workaround.

``test_every_batch.py`` (stateful loaders with and without a length, under ``estimated_stepping_batches``) and
``test_ranks.py`` (distributed samplers) test that the package resumes correctly in these cases.
"""

import lightning
import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

FIXED = f"Lightning {lightning.__version__} fixed this bug of 2.6.6; remove the workaround: "


class Numbers(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return float(index)


class Counted:
    """A loader with a ``state_dict``."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        for number in range(self.at, 6):
            self.at = number + 1
            yield torch.tensor([float(number)])

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class CountedAndSized(Counted):
    def __len__(self):
        return 6


class Model(pl.LightningModule):
    def __init__(self, data, asks=False):
        super().__init__()
        self.layer, self.data, self.asks, self.seen = nn.Linear(1, 1), data, asks, []

    def train_dataloader(self):
        return self.data

    def training_step(self, batch, batch_idx):
        self.seen.append([int(number) for number in batch.flatten()])
        return self.layer(batch.float().reshape(-1, 1)).mean()

    def configure_optimizers(self):
        if self.asks:
            assert self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, data, asks=False, checkpoint=None, **arguments):
    model = Model(data, asks)
    saving = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[saving],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"max_epochs": 1, "use_distributed_sampler": False} | arguments,
    )
    trainer.fit(model, ckpt_path=checkpoint)
    return model.seen


def resumed(folder, make, step, **arguments):
    """Return the batches of a training resumed at a ``step``, and the expected ones."""
    whole = fit(folder, make(), **arguments)
    return fit(folder, make(), checkpoint=folder / f"step={step}.ckpt", **arguments), whole[step:]


@pytest.mark.parametrize("asks", [False, True])
def test_loader_state_is_lost_if_the_optimizer_reads_the_number_of_steps(asks, tmp_path):
    found, expected = resumed(tmp_path, CountedAndSized, 2, asks=asks)
    if asks:
        assert found[0] == [0], (
            FIXED + "#20550, `ReplayedLoader` in resume/iterable_loaders.py hides a loader's own state"
        )
    else:
        assert found[0] == expected[0]


def test_loader_without_a_length_loses_the_prefetched_batch(tmp_path):
    found, expected = resumed(tmp_path, Counted, 2)
    assert found[0] == [3] != expected[0], FIXED + "`ReplayedLoader.keep_state` in resume/iterable_loaders.py"


def test_first_epoch_after_a_resume_has_the_order_of_epoch_0(tmp_path):
    def make():
        sampler = DistributedSampler(Numbers(), num_replicas=2, rank=0, shuffle=True)
        return DataLoader(Numbers(), batch_size=2, sampler=sampler, num_workers=1)

    found, expected = resumed(tmp_path, make, 3, max_epochs=2)
    first_epoch = fit(tmp_path / "first", make())
    assert found[0] == first_epoch[0] != expected[0], FIXED + "#21938, `deferred` in resume/loaders.py"
