"""The checkpoints that a script saves contain the same with the callbacks as without them."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume
from tests.helpers.resume_data import Samples, StatefulLoader, Stream
from tests.helpers.resume_training import digest
from tests.helpers.trainers import quiet_trainer


class Net(pl.LightningModule):
    def __init__(self, manual=False):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = not manual
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))

    def training_step(self, batch, batch_idx):
        parts = batch.values() if isinstance(batch, dict) else [batch]
        loss = self.layer(torch.cat([part[1] for part in parts])).square().mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        if self.hparams.manual:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def plain():
    return DataLoader(Samples(24), 4, shuffle=True)


def stateful():
    samples = Samples(24)
    samples.__class__ = Fixed  # without augmentation, whose draws are those of a stream of its own
    return StatefulLoader(samples, 4)


class Fixed(Samples):
    def __getitem__(self, index):
        return index, self.x[index], 0


SCRIPTS = {
    "plain": (Net, plain, list),
    "loader with a state": (Net, stateful, list),
    "several loaders": (Net, lambda: {"one": plain(), "two": stateful(), "three": stateful()}, list),
    "manual optimization": (lambda: Net(manual=True), plain, list),
    "moving average": (Net, plain, lambda: [EMAWeightAveraging(decay=0.8)]),
}


class Record(pl.Callback):
    def __init__(self, seen):
        self.seen = seen

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch[0].tolist())


def checkpoints(folder, name, *callbacks):
    """Return the checkpoints of the middle and the end of a fit, and the one that is saved after it."""
    module, loader, own = SCRIPTS[name]
    pl.seed_everything(3, verbose=False)
    saves = ModelCheckpoint(folder / "own", filename="{step}", every_n_train_steps=4, save_top_k=-1, save_last=True)
    trainer = quiet_trainer(folder, *callbacks, *own(), saves, enable_checkpointing=True, max_epochs=2)
    trainer.fit(module(), loader())
    trainer.save_checkpoint(folder / "own" / "after.ckpt")
    found = {path.name: torch.load(path, weights_only=True) for path in sorted((folder / "own").iterdir())}
    for one in found.values():
        for state in one["callbacks"].values():
            if isinstance(state, dict):
                state.pop("dirpath", None)
    return found


def differences(one, other, path=""):
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        return [line for key in keys for line in differences(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, str) and isinstance(other, str) and one.endswith(".ckpt"):
        return []  # in another directory
    return [] if digest(one) == digest(other) else [path]


@pytest.mark.parametrize("name", SCRIPTS)
def test_checkpoints_are_those_of_the_script_without_the_callbacks(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(tmp_path / "run"))
    expected = checkpoints(tmp_path / "without", name)
    ours = [EmissionsTracker(meter=10.0, grid=100.0), CarbonScheduler(deadline="2d"), ExactResume()]
    found = checkpoints(tmp_path / "with", name, *ours)
    assert list(found) == list(expected)
    assert differences(expected, found) == []
    states = expected["step=4.ckpt"]["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
    assert len(states) == {"loader with a state": 1, "several loaders": 2}.get(name, 0)


def test_fit_starts_from_a_checkpoint_with_the_state_of_a_loader(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(tmp_path / "run"))
    checkpoints(tmp_path, "loader with a state")
    batches = {}
    for name, callbacks in {"without": [], "with": [ExactResume()]}.items():
        loader, seen = stateful(), batches.setdefault(name, [])
        record = Record(seen)
        trainer = quiet_trainer(tmp_path, *callbacks, record, enable_checkpointing=True, max_epochs=2)
        trainer.fit(Net(), loader, ckpt_path=tmp_path / "own" / "step=4.ckpt")
    assert batches["with"] == batches["without"]
    assert batches["with"]


def test_stream_is_not_mistaken_for_a_loader_with_a_state(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(tmp_path / "run"))
    trainer = quiet_trainer(tmp_path, ExactResume(), enable_checkpointing=True)
    trainer.fit(Net(), DataLoader(Stream(8), 4))
    assert "combined_loader" not in trainer.fit_loop.state_dict()
