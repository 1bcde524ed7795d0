import lightning.pytorch as pl
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from lightning_green._lightning.loggers import (
    logging_step,
    set_logger_version,
    set_wandb_id,
    should_log,
    wandb_experiment,
    wandb_id,
)
from tests.helpers.trainers import batches, quiet_trainer


@pytest.mark.parametrize(("every", "accumulate"), [(1, 1), (3, 1), (2, 3), (50, 1)])
def test_should_log_agrees_with_lightning(tmp_path, every, accumulate):
    asked = []

    class Compare(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            asked.append((should_log(trainer), trainer._logger_connector.should_update_logs))

    trainer = quiet_trainer(
        tmp_path,
        Compare(),
        max_epochs=2,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=every,
        accumulate_grad_batches=accumulate,
    )
    trainer.fit(BoringModel(), batches(14))
    assert len(asked) == 14
    assert [ours for ours, _ in asked] == [theirs for _, theirs in asked]


def test_logging_step_is_the_step_of_lightnings_own_metrics(tmp_path):
    steps = []

    class Compare(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            steps.append(logging_step(trainer))

    logged = []
    logger = CSVLogger(tmp_path)
    logger.log_metrics = lambda metrics, step=None: logged.append(step)

    class Logging(BoringModel):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss["loss"])
            return loss

    quiet_trainer(tmp_path, Compare(), logger=logger, log_every_n_steps=1).fit(Logging(), batches())
    assert logged == steps == list(range(6))


def test_version_is_set_unless_the_script_set_one(tmp_path):
    logger = CSVLogger(tmp_path)
    set_logger_version(logger, 7)
    assert logger.version == 7
    set_logger_version(logger, 8)
    assert logger.version == 7


def test_wandb_id_is_that_of_the_script_or_the_one_set(tmp_path):
    assert wandb_id(WandbLogger(id="mine", offline=True, save_dir=tmp_path)) == "mine"
    logger = WandbLogger(offline=True, save_dir=tmp_path)
    assert wandb_id(logger) is None
    set_wandb_id(logger, "abc")
    assert (wandb_id(logger), logger.version) == ("abc", "abc")
    assert wandb_experiment(logger) is None
