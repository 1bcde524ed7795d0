import json
import multiprocessing
import os
import signal
import stat
import time
from contextlib import suppress

import pytest

from lightning_green.grid.live.cache import Cache
from lightning_green.grid.registry import build_grid
from lightning_green.throttle.profile_cache import ProfileCache
from lightning_green.utilities.files import (
    atomic_file,
    cache_directory,
    create_directory,
    remove_temporary_files,
    write_json,
)

FORK = multiprocessing.get_context("fork")


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


def test_exception_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "values"
    path.write_bytes(b"old")

    def write():
        with atomic_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path, opened, then):
    with atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        opened.set()
        then.wait(60)


@pytest.fixture
def writer(tmp_path):
    """Start a process that has written a half of ``values`` and waits."""
    opened, then = FORK.Event(), FORK.Event()
    process = FORK.Process(target=write_half, args=(tmp_path / "values", opened, then))
    process.start()
    assert opened.wait(30)
    yield process, then
    process.kill()
    process.join()


def test_temporary_files_of_killed_writers_only_are_removed(tmp_path, writer):
    process, _ = writer
    others = [tmp_path / name for name in (".values.tmp", ".env", "values.tmp", ".bashrc.0123-4567.tmp")]
    for path in others:
        path.write_text("of the user")
    remove_temporary_files(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(others) + 1  # the writer is running
    process.kill()
    process.join()
    assert len(list(tmp_path.iterdir())) == len(others) + 1
    remove_temporary_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_writer_whose_files_others_clean_up_finishes(tmp_path, writer):
    process, then = writer
    for _ in range(100):
        remove_temporary_files(tmp_path)
    then.set()
    process.join(30)
    assert process.exitcode == 0
    assert (tmp_path / "values").read_bytes() == b"half"


def test_temporary_files_of_other_machines_are_removed_after_a_day(tmp_path):
    recent, old = (tmp_path / f".values.{host * 8}-0123456789abcdef.tmp" for host in "ab")
    for path in (recent, old):
        path.write_text("half")
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    remove_temporary_files(tmp_path)
    assert list(tmp_path.iterdir()) == [recent]


def test_temporary_names_are_unpredictable_and_links_are_not_followed(tmp_path, monkeypatch):
    victim, taken = tmp_path / "victim", "0123456789abcdef"
    victim.write_text("precious")
    monkeypatch.setattr("lightning_green.utilities.files.secrets.token_hex", lambda length: taken)
    with atomic_file(tmp_path / "values", "w") as file:
        (name,) = (path.name for path in tmp_path.iterdir() if path != victim)
        file.write("new")
    (tmp_path / name).symlink_to(victim)
    with pytest.raises(FileExistsError), atomic_file(tmp_path / "values", "w") as file:
        file.write("newer")
    assert victim.read_text() == "precious"
    monkeypatch.undo()
    names = set()
    for _ in range(5):
        with atomic_file(tmp_path / "other", "w"):
            names |= {path.name for path in tmp_path.glob(".other*")}
    assert len(names) == 5


@pytest.mark.parametrize(("before", "private", "after"), [(0o640, False, 0o640), (0o664, True, 0o600)])
def test_permissions_of_the_replaced_file_are_kept_unless_it_is_private(before, private, after, tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}")
    path.chmod(before)
    write_json(path, {"x": 1}, private=private)
    assert stat.S_IMODE(path.stat().st_mode) == after


def test_cache_directory_without_a_home_directory(monkeypatch):
    def without(*_):
        raise KeyError("uid not found")

    for name in ("HOME", "LIGHTNING_GREEN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", without)
    assert cache_directory().name == f"lightning-green-{os.getuid()}"
    assert "energy-charts" in build_grid("energy-charts:DE").describe()


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_json_is_written_with_its_permissions(private, mode, tmp_path):
    write_json(tmp_path / "a.json", {"x": [1]}, private=private)
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1]}
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) & 0o077 == mode & 0o077


def rename_again_and_again(path):
    while True:
        for source, target in ((path, path.with_name("earlier")), (path.with_name("earlier"), path)):
            with suppress(OSError):
                source.rename(target)


def test_directory_is_created_while_another_process_renames_it(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=rename_again_and_again, args=(tmp_path / "run",))
    process.start()
    try:
        for _ in range(5000):
            create_directory(tmp_path / "run")
    finally:
        process.terminate()
        process.join(60)
    assert process.exitcode == -signal.SIGTERM


@pytest.mark.parametrize("kind", ["file", "broken link"])
def test_directory_in_the_place_of_something_else_is_refused(kind, tmp_path):
    if kind == "file":
        (tmp_path / "run").write_text("mine")
    else:
        (tmp_path / "run").symlink_to(tmp_path / "missing" / "target")
    with pytest.raises(FileExistsError):
        create_directory(tmp_path / "run")
