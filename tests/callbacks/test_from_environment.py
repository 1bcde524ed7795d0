"""Callbacks that the environment adds to scripts which do not mention this package."""

import os
import subprocess
import sys

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume
from lightning_green.callbacks._from_environment import callbacks_from_environment
from lightning_green.callbacks._green import GreenCallback, _members
from lightning_green.ledger import read_ledger
from lightning_green.run.coordinator import close_current_run
from tests.callbacks.green_kit import events, tracker, train
from tests.helpers.trainers import batches

SCRIPT = """
import {package} as pl, torch
from torch.utils.data import DataLoader, TensorDataset

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False)
trainer.fit(Net(), DataLoader(TensorDataset(torch.randn(16, 4)), 4))
"""

FILE = """
- class_path: lightning_green.EmissionsTracker
  init_args:
    grid: 250.0
    meter: 300.0
- class_path: lightning_green.ExactResume
- class_path: lightning.pytorch.callbacks.LearningRateMonitor
  init_args:
    logging_interval: step
"""


def run(folder, package="lightning.pytorch", **environment):
    """Run the script in ``folder``; return the process with its output."""
    (folder / "train.py").write_text(SCRIPT.format(package=package))
    given = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTNING_GREEN")}
    command = [sys.executable, "train.py"]
    return subprocess.run(
        command, cwd=folder, env={**given, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def ledger(folder):
    (path,) = folder.rglob("ledger.*.jsonl")
    return list(read_ledger(path.parent))


@pytest.mark.parametrize("package", ["lightning.pytorch", pytest.param("pytorch_lightning", marks=pytest.mark.nightly)])
def test_script_nobody_edited_is_measured(tmp_path, package):
    pytest.importorskip(package)
    settings = {"LIGHTNING_GREEN_GRID": "typical:DE", "LIGHTNING_GREEN_METER": "300"}
    ended = run(tmp_path, package, LIGHTNING_GREEN="1", LIGHTNING_GREEN_DEADLINE="36h", **settings)
    assert ended.returncode == 0, ended.stderr
    assert "EmissionsTracker and CarbonScheduler: added to this Trainer by LIGHTNING_GREEN=1" in ended.stderr
    assert "constant power (other 300 W)" in ended.stderr
    assert "typical day of Germany" in ended.stderr
    assert "in 1 d 12 h" in ended.stderr
    assert "finished" in {event.name for event in ledger(tmp_path)}


@pytest.mark.parametrize("value", [None, *(pytest.param(one, marks=pytest.mark.nightly) for one in ("", "0"))])
def test_script_is_unchanged_without_the_setting(tmp_path, value):
    ended = run(tmp_path, **({} if value is None else {"LIGHTNING_GREEN": value}))
    assert ended.returncode == 0, ended.stderr
    assert "Lightning Green" not in ended.stderr
    assert not list(tmp_path.rglob("ledger.*"))


def test_file_names_the_callbacks(tmp_path):
    (tmp_path / "green.yaml").write_text(FILE.partition("- class_path: lightning.pytorch")[0])
    ended = run(tmp_path, LIGHTNING_GREEN="green.yaml")
    assert ended.returncode == 0, ended.stderr
    assert "EmissionsTracker and ExactResume: added to this Trainer by LIGHTNING_GREEN=green.yaml" in ended.stderr
    assert "constant 250 gCO2e/kWh" in ended.stderr


def test_wrong_file_ends_the_script_with_one_sentence(tmp_path):
    ended = run(tmp_path, LIGHTNING_GREEN="nowhere.yaml")
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1] == (
        "ValueError: LIGHTNING_GREEN should be 1 or the path of a YAML file with callbacks, got 'nowhere.yaml': "
        "No such file or directory."
    )


def made(tmp_path, text):
    (tmp_path / "green.yaml").write_text(text)
    return callbacks_from_environment({"LIGHTNING_GREEN": str(tmp_path / "green.yaml")})


def test_callbacks_of_other_packages_are_added(tmp_path):
    found = made(tmp_path, FILE)
    assert [type(one) for one in found] == [EmissionsTracker, ExactResume, LearningRateMonitor]
    assert found[2].logging_interval == "step"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- : : [", "green.yaml is not valid YAML: while parsing"),
        ("", "should contain a list of callbacks"),
        ("class_path: lightning_green.ExactResume", "should contain a list of callbacks"),
        ("- 3", "callback 1 should have a `class_path`, got '3'"),
        ("- class_path: os.system", "callback 1 .os.system.: .*not correspond to a subclass of Callback"),
        ("- class_path: no.such.Class", "callback 1 .no.such.Class.: No module named"),
        ("- {class_path: lightning_green.ExactResume, init_args: {interval: 1h}}", "callback 1 .*'interval' is not"),
        ("- {class_path: lightning_green.EmissionsTracker, init_args: {pue: 0.5}}", "callback 1 .*at least 1, got 0.5"),
    ],
)
def test_error_of_a_file_is_one_sentence(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        made(tmp_path, text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_file_needs_jsonargparse(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    with pytest.raises(ModuleNotFoundError, match=r"requires jsonargparse; run pip install 'lightning-green\[cli\]'"):
        made(tmp_path, FILE)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GRID", "typical:Atlantis", "`zone` should be"),
        ("METER", "-3", "`watts` should be"),
        ("DEADLINE", "soon", "`deadline` should be"),
    ],
)
def test_wrong_setting_of_the_environment(name, value, message):
    with pytest.raises(ValueError, match=f"The environment has a wrong setting of Lightning Green. .*{message}"):
        callbacks_from_environment({"LIGHTNING_GREEN": "1", f"LIGHTNING_GREEN_{name}": value})


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN", "1")


def test_callback_of_the_script_is_used_instead(tmp_path, added, caplog):
    caplog.set_level("INFO")
    watch = tracker()
    train(tmp_path, watch)
    assert len(events(tmp_path, "started")) == 1
    assert watch.summary()["energy/kwh"] == pytest.approx(1.2)
    assert "CarbonScheduler: added to this Trainer by LIGHTNING_GREEN=1" in caplog.text
    assert "EmissionsTracker and" not in caplog.text


def test_other_callbacks_do_not_suppress_them(tmp_path, added):
    class Mine(EmissionsTracker):
        pass

    trainer, _ = train(tmp_path, Mine(meter=300.0, grid=100.0), EarlyStopping("loss"))
    assert len([one for one in trainer.callbacks if isinstance(one, (EmissionsTracker, CarbonScheduler))]) == 3
    assert [type(one) for one in _members(trainer)] == [Mine, CarbonScheduler]
    assert len(events(tmp_path, "started")) == 1
    close_current_run()


def test_barebones_trainer_is_left_alone(tmp_path, added):
    trainer = pl.Trainer(accelerator="cpu", barebones=True, max_epochs=1, default_root_dir=tmp_path)
    trainer.fit(BoringModel(), batches())
    assert [one.session for one in trainer.callbacks if isinstance(one, GreenCallback)] == [None, None]
    assert not list(tmp_path.rglob("ledger.*"))
