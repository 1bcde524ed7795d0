import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerStatus

from lightning_green._lightning.planned_exit import skip_exception_hooks, tear_down
from lightning_green.supervisor.launchers import RunPausedExit
from tests.helpers.trainers import quiet_trainer


class Exit(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 2:
            tear_down(trainer)
            skip_exception_hooks(trainer)
            raise RunPausedExit(75)


class Record(pl.Callback):
    def __init__(self, seen):
        self.seen = seen

    def setup(self, trainer, pl_module, stage):
        self.seen.append(("callback", "setup", stage))

    def teardown(self, trainer, pl_module, stage):
        self.seen.append(("callback", "teardown", stage))

    def on_exception(self, trainer, pl_module, exception):
        self.seen.append(("callback", "on_exception"))


class Data(BoringDataModule):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def teardown(self, stage):
        self.seen.append(("data", "teardown", stage))

    def on_exception(self, exception):
        self.seen.append(("data", "on_exception"))


class Module(BoringModel):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def teardown(self, stage):
        self.seen.append(("module", "teardown", stage))


@pytest.fixture
def exited(tmp_path):
    """Return a Trainer after a planned exit, what it had before, and the calls of its hooks."""
    seen = []
    logger = CSVLogger(tmp_path)
    logger.finalize = lambda status: seen.append(("logger", status))
    callbacks = [Exit(), Record(seen), OnExceptionCheckpoint(tmp_path, filename="crash")]
    trainer = quiet_trainer(tmp_path, *callbacks, logger=logger, enable_checkpointing=True)
    data = Data(seen)
    with pytest.raises(RunPausedExit):
        trainer.fit(Module(seen), datamodule=data)
    return trainer, (callbacks, [logger], data), seen


def test_planned_exit_calls_teardown_and_no_hook_of_a_failure(exited, tmp_path):
    _, _, seen = exited
    assert seen == [
        ("callback", "setup", "fit"),
        ("data", "teardown", "fit"),
        ("callback", "teardown", "fit"),
        ("module", "teardown", "fit"),
    ]
    assert not (tmp_path / "crash.ckpt").exists()


def test_trainer_is_complete_and_interrupted_after_a_planned_exit(exited):
    trainer, (callbacks, loggers, data), _ = exited
    assert trainer.callbacks == callbacks
    assert trainer.loggers == loggers
    assert trainer.datamodule is data
    assert "teardown" not in vars(trainer.strategy)
    assert trainer.state.status == TrainerStatus.INTERRUPTED


def test_later_failure_of_the_same_trainer_is_a_failure(exited):
    trainer, _, seen = exited
    seen.clear()

    class Fail(Module):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("the user's own code")

    with pytest.raises(RuntimeError, match="the user's own code"):
        trainer.fit(Fail(seen), datamodule=Data(seen))
    assert [call for call in seen if "on_exception" in call] == [("callback", "on_exception"), ("data", "on_exception")]
    assert ("logger", "failed") in seen


def test_error_in_a_teardown_hook_is_logged_and_the_others_are_called(tmp_path, caplog):
    seen = []

    class Broken(pl.Callback):
        def teardown(self, trainer, pl_module, stage):
            raise RuntimeError("on_train_end was not called")

    trainer = quiet_trainer(tmp_path, Exit(), Broken(), Record(seen))
    with pytest.raises(RunPausedExit):
        trainer.fit(Module(seen))
    assert seen[1:] == [("callback", "teardown", "fit"), ("module", "teardown", "fit")]
    assert "A `teardown` hook raised RuntimeError: on_train_end was not called." in caplog.text
