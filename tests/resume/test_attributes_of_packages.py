"""Attributes of modules and loggers of installed packages, which are not part of the script."""

import importlib
import sys

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_green.resume import object_walk
from tests.helpers.interrupted_fits import assert_continues_exactly, train_part
from tests.helpers.resume_training import digest

PACKAGE = """
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import Logger


class Forecaster(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.losses, self._seen = torch.nn.Linear(4, 1), [], 0

    def training_step(self, batch, batch_idx):
        self._seen += 1
        loss = self.layer(batch[0]).square().mean() * (1 + self._seen)
        self.losses.append((self.global_step, float(loss)))
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-2)


class Experiment:
    def __init__(self):
        self.rows = {}


class MemoryLogger(Logger):
    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self._experiment, self.unsaved, self.written = None, [], 0

    @property
    def experiment(self):
        self._experiment = self._experiment or Experiment()
        return self._experiment

    def log_hyperparams(self, params): ...

    def log_metrics(self, metrics, step=None):
        if "loss" in metrics:
            self.experiment.rows[step] = metrics["loss"]
            self.unsaved.append(step)

    def save(self):
        self.written += len(self.unsaved)
        self.unsaved.clear()
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that is not part of the script."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "forecasting.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(object_walk, "_LIBRARY_PATHS", (str(folder),))
    yield importlib.import_module("forecasting")
    del sys.modules["forecasting"]


def train_installed(package, folder, stop=None, logger=None):
    pl.seed_everything(2, verbose=False)
    data, module = TensorDataset(torch.randn(16, 4)), package.Forecaster()
    loader = DataLoader(data, 4, shuffle=True)
    options = {"logger": logger or False, "log_every_n_steps": 1}
    part = train_part(folder, module, loader, stop=stop, max_epochs=3, **options)
    return part, module


def test_attributes_of_an_installed_lightning_module_are_restored(tmp_path, installed):
    def train(folder, stop):
        part, module = train_installed(installed, folder, stop)
        return part, digest([module.state_dict(), module.losses])

    assert_continues_exactly(train, tmp_path, 6)


def test_values_that_a_logger_keeps_in_memory_are_restored(tmp_path, installed):
    def train(folder, stop):
        logger = installed.MemoryLogger()
        part, _ = train_installed(installed, folder, stop, logger)
        return part, digest(logger.experiment.rows)

    assert_continues_exactly(train, tmp_path, 6)


def test_rows_that_a_logger_has_written_are_not_restored(tmp_path, installed):
    first, second = installed.MemoryLogger(), installed.MemoryLogger()
    train_installed(installed, tmp_path, 6, first)
    train_installed(installed, tmp_path, None, second)
    assert (first.written, second.written + len(second.unsaved)) == (6, 6)
