"""A run that continues, and whose script passes a ``ckpt_path`` to ``fit``."""

import os
import time

import fsspec
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_green.run.run import OtherTrainingError
from lightning_green.run.state_source import is_own_last_checkpoint
from tests.helpers.interrupted_fits import train_part
from tests.helpers.resume_training import digest
from tests.helpers.trainers import batches, quiet_trainer


@pytest.fixture
def earlier(tmp_path):
    """Return a checkpoint of another training, after three steps."""
    trainer = quiet_trainer(tmp_path, max_steps=3)
    trainer.fit(BoringModel(), batches())
    trainer.save_checkpoint(tmp_path / "earlier.ckpt")
    return tmp_path / "earlier.ckpt"


def part(folder, ckpt_path=None, stop=None):
    """Train twelve batches in two epochs; the script saves a checkpoint after every second batch."""
    torch.manual_seed(1)
    module, own = (
        BoringModel(),
        ModelCheckpoint(folder / "own", filename="{step}", every_n_train_steps=2, save_top_k=-1),
    )
    options = {"stop": stop, "callbacks": [own], "ckpt_path": ckpt_path, "max_epochs": 2}
    return train_part(folder, module, batches(), **options), digest(module.state_dict())


def test_run_from_a_checkpoint_continues_from_its_own_state(earlier, tmp_path):
    straight, expected = part(tmp_path / "straight", earlier)
    first, _ = part(tmp_path / "stopped", earlier, stop=7)
    second, weights = part(tmp_path / "stopped", earlier)
    assert first.stopped
    assert first.trained + second.trained == straight.trained
    assert weights == expected


def test_last_checkpoint_of_the_run_itself_is_not_used_instead_of_its_newer_state(tmp_path, caplog):
    _, expected = part(tmp_path / "straight")
    part(tmp_path / "stopped", stop=7)
    caplog.set_level("INFO")
    last = tmp_path / "stopped" / "own" / "step=6.ckpt"
    second, weights = part(tmp_path / "stopped", last)
    assert f"`ckpt_path` {last} is not used: the run continues from its own state, step 7." in caplog.text
    assert (second.trained, weights) == (5, expected)


def test_going_back_to_an_older_state_is_refused_and_works_in_another_run(earlier, tmp_path):
    part(tmp_path / "stopped", stop=7)
    older = tmp_path / "stopped" / "own" / "step=2.ckpt"
    os.utime(older, (time.time() - 60,) * 2)
    for other in (earlier, older):
        with pytest.raises(OtherTrainingError, match=r"continue from step 7, and `ckpt_path` is .* instead of None\."):
            part(tmp_path / "stopped", other)
    fresh, _ = part(tmp_path / "fresh", older)
    assert fresh.trained == 10


def test_last_checkpoint_is_the_newest_file_that_was_written_since_the_start(tmp_path):
    paths = [tmp_path / f"{name}.ckpt" for name in ("old", "last", "new")]
    for path, written in zip(paths, (100.0, 200.0, 300.0), strict=True):
        path.touch()
        os.utime(path, (written, written))
    assert [is_own_last_checkpoint(str(path), 50.0) for path in paths] == [False, True, True]
    assert [is_own_last_checkpoint(str(path), 250.0) for path in paths] == [False, False, True]
    assert not is_own_last_checkpoint(str(tmp_path / "missing.ckpt"), 50.0)


def test_last_checkpoint_of_a_remote_directory_is_found():
    files = fsspec.filesystem("memory")
    began = time.time() - 1
    for name in ("epoch=1.ckpt", "last.ckpt"):
        files.pipe(f"/experiment/{name}", b"")
    assert is_own_last_checkpoint("memory://experiment/last.ckpt", began)
    assert not is_own_last_checkpoint("memory://experiment/last.ckpt", began + 3600)
