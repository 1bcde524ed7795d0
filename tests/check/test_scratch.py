import os

import pytest

from lightning_green.check import scratch
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


def test_what_exceeds_the_limit_is_linked_and_named_except_weights(source, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_MAX_BYTES", 100)
    (source / "train.py").write_bytes(bytes(50))
    (source / "data.tar").write_bytes(bytes(200))
    (source / "model.ckpt").write_bytes(bytes(300))
    mirror = Mirror(source, tmp_path / "tree")
    assert mirror.linked == ["data.tar"]
    assert (mirror.path / "data.tar").read_bytes() == bytes(200)
    assert not (mirror.path / "model.ckpt").is_symlink()


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
