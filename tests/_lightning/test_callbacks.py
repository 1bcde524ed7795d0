import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger

from lightning_green._lightning.callbacks import (
    BeforeExperiment,
    allow_config_overwrite,
    output_directories,
    resume_weight_averaging,
)
from tests.helpers.trainers import batches, quiet_trainer


def test_lightning_binds_log_before_loggers_create_experiments(tmp_path):
    """A run id can still be set at this moment, which no documentation promises."""
    order = []

    class Early(pl.Callback):
        log = BeforeExperiment()

        def on_attach(self, trainer, module):
            order.append(("attach", logger._experiment))

        def setup(self, trainer, pl_module, stage):
            order.append(("setup", logger._experiment is not None))

    logger = CSVLogger(tmp_path)
    quiet_trainer(tmp_path, Early(), max_steps=1, logger=logger).fit(BoringModel(), batches())
    assert order[0] == ("attach", None)
    assert order[-1] == ("setup", True)


def test_config_of_lightning_cli_may_be_overwritten(tmp_path):
    callback = SaveConfigCallback(parser=None, config=None)
    trainer = quiet_trainer(tmp_path, callback)
    assert callback.overwrite is False
    allow_config_overwrite(trainer)
    assert callback.overwrite is True


def test_output_directories_are_those_of_checkpoints_and_loggers(tmp_path):
    checkpoint, logger = ModelCheckpoint(tmp_path / "checkpoints"), CSVLogger(tmp_path / "logs", name="a", version=3)
    trainer = quiet_trainer(tmp_path, checkpoint, logger=logger, enable_checkpointing=True)
    assert output_directories(trainer) == [str(tmp_path / "checkpoints"), str(tmp_path / "logs" / "a" / "version_3")]


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_weight_averaging_continues_with_the_scheduler_state_and_keeps_the_learning_rate(strategy, tmp_path):
    class SaveAtEnd(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                self.saved = trainer.callbacks[0].state_dict()
                self.scheduler = trainer.callbacks[0]._swa_scheduler.state_dict()

    def averaging():
        return StochasticWeightAveraging(0.5, swa_epoch_start=1, annealing_epochs=4, annealing_strategy=strategy)

    save = SaveAtEnd()
    quiet_trainer(tmp_path, averaging(), save, max_epochs=4).fit(BoringModel(), batches())

    restored = averaging()
    restored.load_state_dict(save.saved)
    trainer, module = quiet_trainer(tmp_path, restored), BoringModel()
    trainer.strategy.connect(module)
    group = {"params": list(module.parameters()), "lr": 0.125, "initial_lr": 0.1}  # as restored from a checkpoint
    trainer.strategy.optimizers = [torch.optim.SGD([group])]
    trainer.strategy.lr_scheduler_configs = []
    restored._average_model = BoringModel()
    resume_weight_averaging(trainer)
    assert restored._initialized
    assert restored._swa_scheduler.state_dict() == save.scheduler
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.125
    assert int(restored.n_averaged) == save.saved["n_averaged"]
