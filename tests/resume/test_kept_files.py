from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_green.resume.kept_files import keep_files, restore_files


def trainer_with(*callbacks):
    return SimpleNamespace(checkpoint_callbacks=list(callbacks))


def checkpoint(folder, *names, best=""):
    """Return a checkpoint callback that has written files of these names."""
    folder.mkdir(exist_ok=True)
    callback = ModelCheckpoint(folder)
    for name in names:
        (folder / name).write_text(name)
    callback.best_k_models = {str(folder / name): None for name in names}
    callback.best_model_path = str(folder / best) if best else ""
    return callback


def test_removed_files_of_each_callback_are_restored(tmp_path):
    first, second = checkpoint(tmp_path / "a", "x.ckpt", "y.ckpt", best="x.ckpt"), checkpoint(tmp_path / "b", "x.ckpt")
    (tmp_path / "run").mkdir()
    kept = keep_files(trainer_with(first, second), tmp_path / "run", 3)
    assert kept == [["x.ckpt", "y.ckpt"], ["x.ckpt"]]
    (tmp_path / "a" / "x.ckpt").unlink()
    (tmp_path / "a" / "y.ckpt").write_text("new")

    moved = ModelCheckpoint(tmp_path / "elsewhere")
    restore_files(trainer_with(first, moved), tmp_path / "run", 3, kept)
    assert (tmp_path / "a" / "x.ckpt").read_text() == "x.ckpt"
    assert (tmp_path / "a" / "y.ckpt").read_text() == "new"  # existing files are not replaced
    assert (tmp_path / "elsewhere" / "x.ckpt").read_text() == "x.ckpt"


def test_kept_files_are_links(tmp_path):
    callback = checkpoint(tmp_path / "a", "x.ckpt")
    (tmp_path / "run").mkdir()
    keep_files(trainer_with(callback), tmp_path / "run", 0)
    assert (tmp_path / "a" / "x.ckpt").stat().st_nlink == 2


def test_files_are_not_kept_in_a_run_directory_that_was_renamed(tmp_path):
    callback = checkpoint(tmp_path / "a", "x.ckpt", best="x.ckpt")
    keep_files(trainer_with(callback), tmp_path / "run", 0)
    assert not (tmp_path / "run").exists()


def test_files_of_other_directories_and_missing_files_are_not_kept(tmp_path):
    callback = checkpoint(tmp_path / "a", "x.ckpt")
    (tmp_path / "other.ckpt").touch()
    callback.last_model_path = str(tmp_path / "other.ckpt")
    callback.best_k_models[str(tmp_path / "a" / "missing.ckpt")] = None
    assert keep_files(trainer_with(callback), tmp_path / "run", 0) == [["x.ckpt"]]


@pytest.mark.parametrize("name", ["x.ckpt", "x.py", ".x.ckpt"])
@pytest.mark.parametrize("link", ["file", "directory"])
def test_planted_links_are_not_followed(tmp_path, name, link):
    callback = checkpoint(tmp_path / "a")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / name).write_text("secret")
    folder = tmp_path / "run" / "kept" / "fit0" / "0"
    if link == "file":
        folder.mkdir(parents=True)
        (folder / name).symlink_to(tmp_path / "home" / name)
    else:
        folder.parent.mkdir(parents=True)
        folder.symlink_to(tmp_path / "home")
    restore_files(trainer_with(callback), tmp_path / "run", 0, [[name]])
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("name", ["x.py", ".x.ckpt", "sitecustomize.py"])
def test_only_checkpoints_are_restored(tmp_path, name):
    callback = checkpoint(tmp_path / "a")
    folder = tmp_path / "run" / "kept" / "fit0" / "0"
    folder.mkdir(parents=True)
    (folder / name).write_text("planted")
    restore_files(trainer_with(callback), tmp_path / "run", 0, [[name]])
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("kept", [[], [["x.ckpt"]], [["../../x.ckpt"]]])
def test_missing_and_foreign_names_are_not_restored(kept, tmp_path):
    callback = checkpoint(tmp_path / "a")
    restore_files(trainer_with(callback), tmp_path / "run", 0, kept)
    assert list((tmp_path / "a").iterdir()) == []
