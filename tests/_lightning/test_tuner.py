import pytest
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.tuner.lr_finder import _LRFinder

from lightning_green._lightning.tuner import is_tuner_run, restore_tuned_values, tuned_values
from tests.helpers.trainers import quiet_trainer


def with_tuners(folder, **values):
    module = BoringModel()
    for name, value in values.items():
        setattr(module, name, value)
    trainer = quiet_trainer(folder, BatchSizeFinder(), LearningRateFinder())
    trainer.strategy.connect(module)
    return trainer, module


def test_tuned_values_are_restored_and_the_search_is_disabled(tmp_path):
    trainer, _ = with_tuners(tmp_path, batch_size=64, lr=0.25)
    size, rate = trainer.callbacks[:2]
    size.optimal_batch_size = 64
    rate.optimal_lr = _LRFinder("exponential", 1e-8, 1, 100)
    rate.optimal_lr.results = {"lr": [0.25], "loss": [1.0]}
    saved = tuned_values(trainer)

    other, module = with_tuners(tmp_path, batch_size=2, lr=0.1)
    undo = restore_tuned_values(other, saved)
    size, rate = other.callbacks[:2]
    assert (module.batch_size, module.lr, size.optimal_batch_size) == (64, 0.25, 64)
    assert rate.optimal_lr.results == {"lr": [0.25], "loss": [1.0]}
    assert size.on_fit_start(other, module) is rate.on_fit_start(other, module) is None
    undo()
    assert "on_fit_start" not in {**size.__dict__, **rate.__dict__}


def test_nothing_is_restored_without_saved_values(tmp_path):
    trainer, module = with_tuners(tmp_path, batch_size=2, lr=0.1)
    restore_tuned_values(trainer, [])
    assert (module.batch_size, module.lr) == (2, 0.1)
    assert "on_fit_start" not in trainer.callbacks[0].__dict__


@pytest.mark.parametrize("early_exit", [True, False])
def test_tuner_run_is_one_that_exits_early(early_exit, tmp_path):
    finder = LearningRateFinder()
    finder._early_exit = early_exit
    assert is_tuner_run(quiet_trainer(tmp_path, finder)) is early_exit
    assert not is_tuner_run(quiet_trainer(tmp_path))
