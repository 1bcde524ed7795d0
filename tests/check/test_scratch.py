import os

from lightning_green.check import scratch
from lightning_green.check.scratch import mirror


def test_small_files_are_copied_and_large_ones_linked(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_LARGE_BYTES", 100)
    source = tmp_path / "source"
    (source / "package").mkdir(parents=True)
    (source / "train.py").write_text("print()")
    (source / "package" / "data.bin").write_bytes(bytes(200))
    copy = mirror(source, tmp_path / "copy")
    (copy / "train.py").write_text("changed")
    (copy / "package" / "new").touch()
    assert (source / "train.py").read_text() == "print()"
    assert not (source / "package" / "new").exists()
    assert (copy / "package" / "data.bin").is_symlink()
    assert (copy / "package" / "data.bin").read_bytes() == bytes(200)


def test_environments_and_directories_of_many_files_are_linked(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_MAX_ENTRIES", 3)
    source = tmp_path / "source"
    for name in ("images", ".venv", ".git", "few"):
        (source / name).mkdir(parents=True)
    for number in range(4):
        (source / "images" / f"{number}.png").touch()
    copy = mirror(source, tmp_path / "copy")
    assert (copy / "images").is_symlink()
    assert (copy / ".venv").is_symlink()
    assert not (copy / ".git").exists()
    assert not (copy / "few").is_symlink()


def test_links_are_kept_and_broken_ones_left_out(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "data").mkdir()
    (source / "data").symlink_to("../data")
    (source / "broken").symlink_to("../nowhere")
    copy = mirror(source, tmp_path / "elsewhere" / "copy")
    assert os.path.realpath(copy / "data") == str(tmp_path / "data")
    assert not (copy / "broken").is_symlink()


def test_a_copy_below_the_directory_does_not_contain_itself(tmp_path):
    (tmp_path / "train.py").touch()
    copy = mirror(tmp_path, tmp_path / "kept" / "copy")
    assert [path.name for path in copy.iterdir()] == ["train.py"]
