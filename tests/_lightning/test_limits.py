from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger

from lightning_green._lightning.limits import (
    accumulated_batches,
    limit_evaluation,
    limit_training,
    redirect_outputs,
    scheduled_changes,
)
from tests.helpers.trainers import batches, quiet_trainer


@pytest.mark.parametrize(
    ("options", "steps", "epochs"),
    [
        ({"max_epochs": 90}, 12, 3),
        ({"max_epochs": 2}, 8, 2),
        ({"max_epochs": -1}, 12, 3),
        ({"max_epochs": None, "max_steps": 5}, 5, 2),
        ({"max_epochs": 90, "limit_train_batches": 3}, 9, 3),
        ({"max_epochs": 90, "limit_train_batches": 0.9}, 12, 3),
        ({"max_epochs": 90, "min_epochs": 80}, 12, 3),
        ({"max_epochs": 90, "check_val_every_n_epoch": 10, "limit_val_batches": 1.0}, 12, 3),
        ({"max_epochs": 90, "check_val_every_n_epoch": None, "val_check_interval": 500}, 12, 3),
    ],
)
def test_fit_is_short(tmp_path, options, steps, epochs):
    trainer = quiet_trainer(tmp_path, **options)
    limit_training(trainer, epochs=3, batches=4)
    limit_evaluation(trainer)
    trainer.fit(BoringModel(), batches(40), batches(40))
    assert (trainer.global_step, trainer.current_epoch) == (steps, epochs)


def test_second_fit_of_a_trainer_is_as_long_as_the_first(tmp_path):
    trainer = quiet_trainer(tmp_path, max_epochs=90)
    model = BoringModel()
    for fit in range(1, 3):
        trainer.fit_loop.max_epochs = 90 * fit
        limit_training(trainer, epochs=2, batches=4)
        trainer.fit(model, batches(40))
        assert trainer.global_step == 8 * fit


def test_evaluation_is_short(tmp_path):
    seen = []
    count = pl.callbacks.LambdaCallback(on_test_batch_start=lambda *args: seen.append(1))
    trainer = quiet_trainer(tmp_path, count)
    limit_evaluation(trainer)
    trainer.test(BoringModel(), batches(40), verbose=False)
    assert len(seen) == 2


def test_changes_of_lightnings_callbacks(tmp_path):
    trainer = quiet_trainer(tmp_path, GradientAccumulationScheduler({0: 2, 3: 5}))
    assert scheduled_changes(trainer) == [3]
    assert accumulated_batches(trainer) == 5


def test_outputs_outside_the_working_directory_are_redirected(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    elsewhere, outputs = tmp_path / "elsewhere", tmp_path / "outputs"
    for root, target in ((elsewhere, outputs), (tmp_path / "work" / "inside", tmp_path / "work")):
        logger = CSVLogger(root, name="logs")
        checkpoint = ModelCheckpoint(root / "checkpoints")
        trainer = quiet_trainer(
            root, checkpoint, logger=logger, enable_checkpointing=True, limit_train_batches=1, log_every_n_steps=1
        )
        assert redirect_outputs(trainer, outputs) == []
        trainer.fit(BoringModel(), batches())
        assert Path(trainer.log_dir).absolute().is_relative_to(target)
        assert len(list(target.rglob("*.ckpt"))) == 1
    assert not elsewhere.exists()


@pytest.mark.parametrize("root", ["memory://runs", "memory://bucket/runs"])
def test_remote_outputs_are_redirected(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    checkpoint = ModelCheckpoint(f"{root}/checkpoints")
    trainer = quiet_trainer(root, checkpoint, enable_checkpointing=True)
    redirect_outputs(trainer, tmp_path / "outputs")
    for path in (trainer.default_root_dir, checkpoint.dirpath):
        assert Path(path).is_relative_to(tmp_path / "outputs" / "remote")


def test_unknown_loggers_are_named(tmp_path):
    class MyLogger(pl.loggers.logger.DummyLogger):
        pass

    assert redirect_outputs(quiet_trainer(tmp_path, logger=MyLogger()), tmp_path) == ["MyLogger"]
