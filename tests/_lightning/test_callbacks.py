import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger

from lightning_green._lightning.callbacks import (
    BeforeExperiment,
    allow_config_overwrite,
    finetuned_optimizers,
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


def test_groups_are_restored_once_the_callback_has_started(tmp_path):
    class Net(BoringModel):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Linear(2, 2)

    callback, module = BackboneFinetuning(), Net()
    trainer = quiet_trainer(tmp_path, callback)
    trainer.strategy.connect(module)
    trainer.strategy.optimizers = [torch.optim.SGD(module.layer.parameters(), 0.1)]
    assert finetuned_optimizers(trainer) == set()
    groups = [{"params": ["layer.weight", "layer.bias"], "lr": 0.5}]
    callback.load_state_dict({"previous_backbone_lr": 0.1, "internal_optimizer_metadata": {0: groups}})
    assert finetuned_optimizers(trainer) == set(), "the groups are still those of the script"
    callback.on_fit_start(trainer, module)
    assert finetuned_optimizers(trainer) == {0}


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
