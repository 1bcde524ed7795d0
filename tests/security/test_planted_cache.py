"""A cache folder that other users may write to."""

import json
import os
import pwd
import stat

import pytest

from lightning_green.grid import EnergyChartsSignal, build_grid
from lightning_green.grid.live.cache import Cache, Entry
from lightning_green.throttle.profile import ThrottleProfile
from lightning_green.throttle.profile_cache import ProfileCache
from lightning_green.utilities import trusted_files
from lightning_green.utilities.files import cache_directory
from lightning_green.utilities.trusted_files import (
    UntrustedFileError,
    is_shared,
    make_private,
    open_own,
    read_own,
)
from lightning_green.utilities.user_key import is_keyed_hash, keyed_hash
from tests.helpers.live_signals import NOW

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
NOBODY = 65534


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Return a cache folder like ``/tmp``, in which every user can add files."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(folder))
    return folder


def poison(folder, signal):
    """Write answers that would be believed for a day."""
    start = int(NOW.timestamp()) // 900 * 900
    times = [start + 900 * number for number in range(-96, 96)]
    body = {"unix_seconds": times, "co2eq": [5000.0] * 192, "co2eq_forecast": [5000.0] * 192, "country": "de"}
    entry = {"version": 1, "body": body, "fetched_at": NOW.timestamp(), "not_before": NOW.timestamp() + 86_000}
    for query in signal.queries(NOW):
        path = folder / f"{signal.fetcher._key(query)}.json"
        path.write_text(json.dumps(entry | {"error": "", "failures": 0, "validators": {}}))
        path.chmod(0o644)
        yield path


@as_root
def test_entry_of_another_user_is_not_believed(shared):
    signal = EnergyChartsSignal("DE")
    (shared / "grid").mkdir()
    paths = list(poison(shared / "grid", signal))
    signal.load_cache(NOW)
    assert signal.intensity(NOW).value == 5000.0, "an own entry is believed"
    for path in paths:
        os.chown(path, NOBODY, NOBODY)
    signal = EnergyChartsSignal("DE")
    signal.load_cache(NOW)
    assert signal.intensity(NOW) is None


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_entry_that_others_can_write_is_not_believed(tmp_path, mode):
    cache = Cache(tmp_path)
    cache.write("k", Entry(body=[1], fetched_at=1.0))
    assert cache.read("k").body == [1]
    (tmp_path / "k.json").chmod(mode)
    assert cache.read("k").body is None


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_special_file_is_not_read(tmp_path, kind):
    cache = Cache(tmp_path)
    if kind == "link":
        (tmp_path / "other").write_text(json.dumps({"version": 1, "body": [1], "fetched_at": 1.0}))
        (tmp_path / "k.json").symlink_to(tmp_path / "other")
    else:
        os.mkfifo(tmp_path / "k.json")
    assert cache.read("k").body is None


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o770])
def test_folder_whose_files_others_can_replace_is_not_used(tmp_path, mode):
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid").chmod(mode)
    cache = Cache(tmp_path / "grid")
    with cache.lock("k"):
        cache.write("k", Entry(body=[1], fetched_at=1.0))
    assert cache.read("k").body == [1], "the entry is kept in memory"
    assert list((tmp_path / "grid").iterdir()) == []
    assert "cannot be used (other users can replace its files)" in cache.problem


@as_root
def test_folder_of_another_user_is_not_used(tmp_path):
    (tmp_path / "grid").mkdir()
    os.chown(tmp_path / "grid", NOBODY, NOBODY)
    cache = Cache(tmp_path / "grid")
    with cache.lock("k"):
        cache.write("k", Entry(body=[1]))
    assert list((tmp_path / "grid").iterdir()) == []


def test_new_folders_and_files_are_private(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "a" / "b"))
    cache = Cache()
    with cache.lock("k"):
        cache.write("k", Entry(body=[1]))
    ProfileCache(["GPU"], "m", ["200 W"]).save(ThrottleProfile(["full", "200 W"], run_seconds=1.0))
    keyed_hash("x", "y")
    found = [*(tmp_path / "a").rglob("*.json"), tmp_path / "a" / "b" / "key"]
    assert len(found) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*") if path.is_dir()} == {0o700}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_profile_of_another_user_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path))
    cache = ProfileCache(["GPU"], "m", ["200 W"])
    make_private(cache.path.parent)
    point = {"seconds": 1.0, "seconds_error": 0.0, "watts": 250.0, "watts_error": 0.0}
    names = ["full", "200 W"]
    cache.path.write_text(json.dumps({"names": names, "points": [point | {"name": name} for name in names]}))
    cache.path.chmod(0o600)
    assert cache.load(ThrottleProfile(names, run_seconds=3600.0))
    cache.path.chmod(0o666)
    assert not cache.load(ThrottleProfile(names, run_seconds=3600.0))


@pytest.mark.parametrize("content", ["00" * 32, "", "x" * 64])
def test_key_that_others_can_read_is_no_key(tmp_path, monkeypatch, content):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path))
    (tmp_path / "key").write_text(content)
    (tmp_path / "key").chmod(0o644)
    assert keyed_hash("a", "b") is None
    assert not is_keyed_hash("", "a", "b")
    assert not is_keyed_hash(None, "a", "b")


def test_key_is_created_once_and_depends_on_the_purpose(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path))
    first = keyed_hash("a", "b")
    assert first is not None
    assert keyed_hash("a", "b") == first
    assert is_keyed_hash(first, "a", "b")
    assert not is_keyed_hash(first, "c", "b")
    assert not is_keyed_hash("é", "a", "b")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_user_without_a_home_directory_has_a_cache(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert cache_directory().name == f"lightning-green-{os.geteuid()}"
    for grid in ("energy-charts:DE", "typical:DE", ["energy-charts:DE", "typical:DE"]):
        assert build_grid(grid).describe()


def test_reading_is_limited_and_never_waits(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 11)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "large")
    for name in ("large", "fifo", "link", "."):
        with pytest.raises(UntrustedFileError):
            read_own(tmp_path / name, 10)
    assert read_own(tmp_path / "large", 11) == b"x" * 11
    with pytest.raises(FileNotFoundError):
        read_own(tmp_path / "none", 1)
    for name in ("fifo", "link"):
        with pytest.raises(UntrustedFileError):
            open_own(tmp_path / name, os.O_WRONLY | os.O_CREAT)


def test_sticky_folder_of_root_is_not_shared(tmp_path, monkeypatch):
    tmp_path.chmod(0o1777)
    assert not is_shared(tmp_path)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(trusted_files.os, "geteuid", lambda: 12345)
    assert is_shared(tmp_path) == (tmp_path.stat().st_uid != 0)
