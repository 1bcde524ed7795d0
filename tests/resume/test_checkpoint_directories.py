"""Best models over a stop: their directory, their paths and their scores, with every kind of logger."""

import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_green.resume.checkpoint_directories import continue_directories
from lightning_green.run.coordinator import close_current_run
from lightning_green.strategies.control_group import ControlGroup
from tests.helpers.interrupted_fits import train_part
from tests.helpers.trainers import batches

SCORES = [0.5, 0.1, 0.9, 0.7, 0.6, 0.8]  # the best one is from before the stop in the third epoch
TOP = {"epoch=1-val_loss=0.1.ckpt": 0.1, "epoch=0-val_loss=0.5.ckpt": 0.5}
NOW = datetime.now(timezone.utc)
LATER = NOW + timedelta(minutes=17)


class OwnLogger(Logger):
    """A logger whose run has a new id in every process, as those of several services."""

    def __init__(self):
        super().__init__()
        self.id = uuid.uuid4().hex[:6]

    name = property(lambda self: "own")
    version = property(lambda self: self.id)

    def log_hyperparams(self, *arguments, **options):
        pass

    def log_metrics(self, *arguments, **options):
        pass


class Validated(BoringModel):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", torch.tensor(SCORES[self.current_epoch]))


def mlflow(folder):
    pytest.importorskip("mlflow")
    return MLFlowLogger("experiment", tracking_uri=f"file:{folder}/mlruns")


LOGGERS = {
    "none": lambda folder: False,
    "csv": CSVLogger,
    "tensorboard": TensorBoardLogger,
    "wandb": lambda folder: WandbLogger(project="tests", offline=True, save_dir=folder),
    "own": lambda folder: OwnLogger(),
    "mlflow": mlflow,
    "own first of two": lambda folder: [OwnLogger(), CSVLogger(folder)],
}


def part(folder, logger, stop, dirpath=None):
    """Train until a step, or to the end; return the part and the checkpoint callback."""
    best = ModelCheckpoint(dirpath, monitor="val_loss", save_top_k=2, filename="{epoch}-{val_loss:.1f}", save_last=True)
    made = LOGGERS[logger](folder)
    options = {"max_epochs": len(SCORES), "limit_val_batches": 1, "logger": made}
    done = train_part(folder, Validated(), batches(), batches(4), stop=stop, callbacks=[best], **options)
    if logger == "wandb":
        made.experiment.finish()
    close_current_run()
    return done, best


def best_models(folder, best):
    """Return what a script reads from a checkpoint callback, and the files of the run."""
    directory = Path(best.dirpath)
    return {
        "best": Path(best.best_model_path).relative_to(directory).name,
        "last": Path(best.last_model_path).relative_to(directory).name,
        "score": float(best.best_model_score),
        "top": {Path(path).relative_to(directory).name: float(score) for path, score in best.best_k_models.items()},
        "files": sorted(path.name for path in directory.iterdir()),
        "all": sorted(path.name for path in folder.rglob("*val_loss*.ckpt") if path.parent.name != "0"),  # not linked
    }


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch):
    for name in ("RUN_DIR", "RESUME", "CLOCK"):
        monkeypatch.setenv(f"LIGHTNING_GREEN_{name}", "")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("logger", LOGGERS)
def test_best_models_are_those_of_a_training_that_never_stopped(tmp_path, logger):
    _, whole = part(tmp_path / "whole", logger, None)
    expected = best_models(tmp_path / "whole", whole)
    assert expected["best"] == "epoch=1-val_loss=0.1.ckpt"
    first, before = part(tmp_path / "stopped", logger, 15)
    assert first.stopped
    second, after = part(tmp_path / "stopped", logger, None)
    assert second.trained == 21
    assert after.dirpath == before.dirpath
    assert best_models(tmp_path / "stopped", after) == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"{NOW:%Y-%m-%d_%H-%M-%S}", f"{LATER:%Y-%m-%d_%H-%M-%S}"),
        (f"run/{NOW:%Y-%m-%d/%H-%M-%S}/ckpt", f"run/{LATER:%Y-%m-%d/%H-%M-%S}/ckpt"),
        (f"{NOW.timestamp():.0f}", f"{LATER.timestamp()}"),
        ("9a1b2c3d4e5f", "0f1e2d3c4b5a"),
    ],
    ids=["time", "date and time", "seconds", "identifier"],
)
def test_time_stamps_and_identifiers_in_a_directory_change_nothing(tmp_path, first, second):
    part(tmp_path, "none", 15, tmp_path / first)
    done, after = part(tmp_path, "none", None, tmp_path / second)
    assert not done.stopped
    assert after.dirpath == str(tmp_path / first)
    assert best_models(tmp_path, after)["top"] == pytest.approx(TOP)
    assert not (tmp_path / second).exists()


def test_checkpoint_callback_of_the_other_package_keeps_its_directory(tmp_path):
    other = pytest.importorskip("pytorch_lightning")
    saved, now = (str(tmp_path / f"{time:%Y-%m-%d_%H-%M-%S}") for time in (NOW, LATER))
    callback = other.callbacks.ModelCheckpoint(now)
    trainer = other.Trainer(accelerator="cpu", logger=False, callbacks=[callback], default_root_dir=tmp_path)
    checkpoint = {"callbacks": {callback.state_key: {"dirpath": saved}}}
    assert continue_directories(trainer, checkpoint, ControlGroup()) == []
    assert callback.dirpath == saved


def test_changed_directory_is_used_and_earlier_models_still_count(tmp_path, caplog):
    caplog.set_level("INFO")
    _, before = part(tmp_path, "none", 15, tmp_path / "one")
    _, after = part(tmp_path, "none", None, tmp_path / "two")
    assert after.dirpath == str(tmp_path / "two")
    assert after.best_model_path == before.best_model_path == str(tmp_path / "one" / "epoch=1-val_loss=0.1.ckpt")
    assert float(after.best_model_score) == pytest.approx(0.1)
    assert sorted(map(float, after.best_k_models.values())) == pytest.approx([0.1, 0.5])
    assert after.last_model_path == str(tmp_path / "two" / "last.ckpt")
    assert (
        f"New checkpoints are saved in {tmp_path / 'two'}. Those in {tmp_path / 'one'} and their scores still count."
        in caplog.text
    )


@pytest.mark.parametrize(
    ("current", "saved"),
    [
        ("/home/me/ckpt", "/etc/cron.d"),
        ("/home/me/ckpt", "/home/me/.ssh"),
        ("/home/me/ckpt/2026-11-26", "/home/me/.ssh/2026-11-26"),
        ("/home/me/ckpt/2026-11-26", "/home/me/ckpt/../2026-11-26"),
        ("/home/me/a/b", "/home/me/a"),
        ("/var/tmp/a", "/var/tmp/b"),
    ],
)
def test_checkpoint_names_no_other_place_to_write_to(current, saved, tmp_path):
    callback = ModelCheckpoint(monitor="val_loss")
    callback.dirpath = current
    trainer = SimpleNamespace(checkpoint_callbacks=[callback], loggers=[OwnLogger()], default_root_dir=str(tmp_path))
    state = {"callbacks": {callback.state_key: {"dirpath": saved}}}
    messages = continue_directories(trainer, state, ControlGroup())
    assert callback.dirpath == state["callbacks"][callback.state_key]["dirpath"] == current
    assert messages == [f"New checkpoints are saved in {current}. Those in {saved} and their scores still count."]


def test_only_the_version_of_a_default_directory_may_differ(tmp_path):
    logger = OwnLogger()
    for saved, same in (("own/x", True), ("other/x", False), ("own/..", False), ("own/x/y", False)):
        callback = ModelCheckpoint()
        callback.dirpath = str(tmp_path / "own" / logger.id / "checkpoints")
        trainer = SimpleNamespace(checkpoint_callbacks=[callback], loggers=[logger], default_root_dir=str(tmp_path))
        before = f"{tmp_path}/{saved}/checkpoints"
        continue_directories(trainer, {"callbacks": {callback.state_key: {"dirpath": before}}}, ControlGroup())
        assert (callback.dirpath == before) is same


@pytest.mark.parametrize("checkpoint", [{}, {"callbacks": {}}, {"callbacks": {"ModelCheckpoint": {}}}])
def test_checkpoint_without_a_directory_changes_nothing(tmp_path, checkpoint):
    callback = ModelCheckpoint(tmp_path)
    trainer = SimpleNamespace(checkpoint_callbacks=[callback], loggers=[], default_root_dir=str(tmp_path))
    assert continue_directories(trainer, checkpoint, ControlGroup()) == []
    assert callback.dirpath == str(tmp_path)
