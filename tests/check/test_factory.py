from importlib.metadata import entry_points

import pytest

from lightning_green.check.factory import callbacks
from lightning_green.check.job import JOB_VARIABLE, Job
from lightning_green.check.probe import Probe


def test_no_callback_outside_a_check(tmp_path, monkeypatch):
    assert callbacks() == []
    Job(tmp_path).write()
    monkeypatch.setenv(JOB_VARIABLE, str(tmp_path))
    assert [type(one) for one in callbacks()] == [Probe]


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning_adds_it_to_every_trainer(tmp_path, monkeypatch, package):
    (found,) = entry_points(group=f"{package}.callbacks_factory", name="lightning_green")
    assert found.load() is callbacks
    Job(tmp_path).write()
    monkeypatch.setenv(JOB_VARIABLE, str(tmp_path))
    trainer = pytest.importorskip(package).Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert [one for one in trainer.callbacks if isinstance(one, Probe)]


def test_setting_of_the_environment_adds_callbacks(monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN", "1")
    assert [type(one).__name__ for one in callbacks()] == ["EmissionsTracker", "CarbonScheduler"]
    monkeypatch.setenv("LIGHTNING_GREEN", "0")
    assert callbacks() == []
