import errno
import os
import shutil

import pytest

from lightning_green.check import CheckFailedError, scratch
from lightning_green.check.scratch import Mirror


@pytest.fixture
def source(tmp_path):
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def test_files_are_copied_so_that_the_originals_do_not_change(source, tmp_path):
    (source / "package").mkdir()
    (source / "package" / "train.py").write_text("print()")
    (source / "model.pt").write_bytes(bytes(2_000_000))
    mirror = Mirror(source, tmp_path / "tree")
    assert mirror.path == tmp_path / "tree" / "project"
    (mirror.path / "model.pt").write_text("toy")
    (mirror.path / "package" / "train.py").write_text("changed")
    (mirror.path / "package" / "new").touch()
    assert (source / "model.pt").stat().st_size == 2_000_000
    assert (source / "package" / "train.py").read_text() == "print()"
    assert not (source / "package" / "new").exists()
    assert mirror.linked == []


def test_data_that_exceeds_the_limit_is_linked_and_weights_are_left_out(source, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_MAX_BYTES", 100)
    for name, size in (("train.py", 50), ("best.pt", 40), ("data.npy", 200), ("model.ckpt", 300)):
        (source / name).write_bytes(bytes(size))
    mirror = Mirror(source, tmp_path / "tree")
    assert mirror.linked == ["data.npy"]
    assert (mirror.path / "data.npy").read_bytes() == bytes(200)
    assert not (mirror.path / "best.pt").is_symlink()
    assert mirror.left_out == ["model.ckpt"]  # a script that saves its model replaces it
    assert not (mirror.path / "model.ckpt").exists()


def test_copies_take_a_quarter_of_the_free_space_at_most(source, tmp_path, monkeypatch):
    (source / "train.py").write_bytes(bytes(50))
    (source / "data.csv").write_bytes(bytes(200))
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 600, 400))
    assert Mirror(source, tmp_path / "tree").linked == ["data.csv"]


def test_full_disk_ends_the_check_instead_of_truncating_a_file(source, tmp_path, monkeypatch):
    def full(source, target):
        target.write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    (source / "train.py").touch()
    monkeypatch.setattr(scratch.shutil, "copy2", full)
    with pytest.raises(CheckFailedError, match=r"cannot be copied to .*No space left on device"):
        Mirror(source, tmp_path / "tree")


def test_file_that_is_removed_or_cannot_be_read_is_left_out(source, tmp_path, monkeypatch):
    def refused(source, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    (source / "secret").touch()
    monkeypatch.setattr(scratch.shutil, "copy2", refused)
    assert list(Mirror(source, tmp_path / "tree").path.iterdir()) == []


def test_copy_of_a_copy_has_the_same_files_and_links(source, tmp_path):
    (tmp_path / "data").mkdir()
    (source / ".git").mkdir()
    (source / "train.py").write_text("print()")
    original = Mirror(source, tmp_path / "elsewhere" / "original")
    path = original.copy(tmp_path / "elsewhere" / "tree")
    (path / "train.py").write_text("changed")
    assert (original.path / "train.py").read_text() == "print()"
    assert (path / ".git").resolve() == source / ".git"
    assert (path / ".." / "data").resolve() == tmp_path / "data"


def test_environments_and_directories_of_many_files_are_linked(source, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_MAX_ENTRIES", 5)
    for name in ("images", ".venv", ".git", "few", "__pycache__"):
        (source / name).mkdir()
    for number in range(6):
        (source / "images" / f"{number}.png").touch()
    mirror = Mirror(source, tmp_path / "tree")
    assert sorted(mirror.linked) == [".git", ".venv", "images"]
    assert not (mirror.path / "few").is_symlink()
    assert not (mirror.path / "__pycache__").exists()


def test_a_directory_that_is_linked_leaves_room_for_the_others(source, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_MAX_TOTAL", 8)
    for name, count in (("data", 7), ("outputs", 2), ("source", 2)):
        (source / name).mkdir()
        for number in range(count):
            (source / name / str(number)).touch()
    assert Mirror(source, tmp_path / "tree").linked == ["data"]


def test_links_are_kept_and_broken_ones_left_out(source, tmp_path):
    (tmp_path / "data").mkdir()
    (source / "data").symlink_to("../data")
    (source / "broken").symlink_to("../nowhere")
    mirror = Mirror(source, tmp_path / "elsewhere" / "tree")
    assert os.path.realpath(mirror.path / "data") == str(tmp_path / "data")
    assert not (mirror.path / "broken").is_symlink()


def test_what_is_next_to_the_working_directory_is_found(source, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("1")
    mirror = Mirror(source, tmp_path / "elsewhere" / "tree")
    assert (mirror.path / ".." / "data" / "x").read_text() == "1"


def test_a_copy_below_the_directory_does_not_contain_itself(source):
    (source / "train.py").touch()
    mirror = Mirror(source, source / "kept" / "straight" / "tree")
    assert [path.name for path in mirror.path.iterdir()] == ["train.py"]


def test_directory_that_cannot_be_read_is_empty(source, tmp_path, monkeypatch):
    (source / "private").mkdir()
    scan = os.scandir

    def refused(path):
        if str(path).endswith("private"):
            raise PermissionError(13, "denied")
        return scan(path)

    monkeypatch.setattr(scratch.os, "scandir", refused)
    assert list((Mirror(source, tmp_path / "tree").path / "private").iterdir()) == []
