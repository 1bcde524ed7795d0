import json
import stat

import pytest

from lightning_green.grid.live.cache import Cache
from lightning_green.throttle.profile_cache import ProfileCache
from lightning_green.utilities.files import atomic_file, cache_directory, write_json


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"LIGHTNING_GREEN_CACHE_DIR": "~/c", "XDG_CACHE_HOME": "/x"}, "home/c"),
        ({"XDG_CACHE_HOME": "~/x"}, "home/x/lightning-green"),
        ({}, "home/.cache/lightning-green"),
    ],
)
def test_cache_directory(variables, folder, tmp_path, monkeypatch):
    for name in ("LIGHTNING_GREEN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path / "home"), **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == tmp_path / folder
    assert Cache().folder == tmp_path / folder / "grid"
    assert ProfileCache(["GPU"], "model", ["1 W"]).path.parent == tmp_path / folder / "throttle"


def test_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "values"
    path.write_text("old")
    with atomic_file(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("single_writer", [True, False])
def test_exception_keeps_the_old_file_and_leaves_no_temporary_file(single_writer, tmp_path):
    path = tmp_path / "values"
    path.write_bytes(b"old")

    def write():
        with atomic_file(path, single_writer=single_writer) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_single_writer_reuses_the_temporary_file_of_a_killed_process(tmp_path):
    (tmp_path / ".values.tmp").write_bytes(b"of a killed process, and longer")
    with atomic_file(tmp_path / "values", single_writer=True) as file:
        file.write(b"new")
    assert (tmp_path / "values").read_bytes() == b"new"
    assert not (tmp_path / ".values.tmp").exists()


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_json_is_written_with_its_permissions(private, mode, tmp_path):
    write_json(tmp_path / "a.json", {"x": [1]}, private=private)
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1]}
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) & 0o077 == mode & 0o077
