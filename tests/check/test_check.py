"""Real scripts, started by the check as users start them."""

import sys
import textwrap

import pytest

from lightning_green.check import Check, Verdict
from lightning_green.check.check import CheckFailedError

SCRIPT = """
import random
import sys
import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

KIND = sys.argv[1]
COUNT = 0
torch.set_num_threads(1)


class Data(Dataset):
    def __init__(self):
        self.x, self.generator = torch.randn(64, 4), random.Random(0)

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return self.x[index] + (self.generator.random() if KIND == "worker generator" else 0)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 1))

    def on_train_epoch_start(self):
        global COUNT
        if KIND == "counter of the epoch":
            COUNT = 0

    def training_step(self, batch, batch_idx):
        global COUNT
        COUNT += 1
        loss = self.net(batch).square().mean() * (COUNT if KIND.startswith("counter") else 1)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch).square().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


if __name__ == "__main__":
    if KIND != "no seed":
        pl.seed_everything(1)
    workers = 1 if KIND == "worker generator" else 0
    open("written", "w").close()
    trainer = pl.Trainer(max_epochs=50, accelerator="cpu", enable_progress_bar=False)
    trainer.fit(Net(), DataLoader(Data(), 4, shuffle=True, num_workers=workers), DataLoader(Data(), 8))
    assert trainer.global_step == 18, trainer.global_step
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    return [sys.executable, "train.py"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "verdict", "named"),
    [
        ("exact", Verdict.EXACT, ""),
        ("counter", Verdict.INEXACT, "COUNT"),
        ("counter of the epoch", Verdict.EPOCHS, "COUNT"),
        ("worker generator", Verdict.EPOCHS, ""),
        ("no seed", Verdict.UNDETERMINED, "train_dataloader[0].dataset.x"),
    ],
)
def test_verdict(script, tmp_path, kind, verdict, named):
    result = Check([*script, kind]).run()
    assert result.verdict is verdict
    assert (result.fits, result.epochs, result.batches) == (1, 3, 6)
    changed = [] if result.difference is None else [path for path, _, _ in result.difference.attributes]
    assert bool(named) is any(named in path for path in changed)
    assert (verdict is Verdict.EXACT) is not bool(result.reason)
    assert {path.name for path in tmp_path.iterdir()} == {"train.py"}  # the script wrote into a copy


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-command"], "cannot be started"),
        ([sys.executable, "-c", "raise SystemExit('no data')"], r"exit code 1 \(uninterrupted\)(.|\n)*no data"),
        ([sys.executable, "-c", "pass"], "No `Trainer.fit`"),
    ],
)
def test_what_cannot_be_checked_is_reported(tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckFailedError, match=message):
        Check(command).run()


def test_a_process_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckFailedError, match="more than 1 s"):
        Check([sys.executable, "-c", "import time; time.sleep(60)"], timeout=1).run()


def test_kept_directory_has_the_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckFailedError):
        Check([sys.executable, "-c", "print('seen')"], keep=tmp_path / "kept").run()
    assert (tmp_path / "kept" / "straight" / "output.log").read_text() == "seen\n"
