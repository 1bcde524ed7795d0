"""Locked clocks through zeusd, with a local server on a Unix socket."""

import pytest

from lightning_green.throttle.actuators.zeusd_locked_clocks import ZeusdLockedClocks
from tests.helpers.zeusd_server import zeusd_server


@pytest.fixture
def zeusd(tmp_path, monkeypatch):
    monkeypatch.delenv("ZEUSD_TOKEN", raising=False)
    path = str(tmp_path / "z.sock")
    monkeypatch.setenv("ZEUSD_SOCK_PATH", path)
    with zeusd_server(path) as state:
        yield state


def test_locks_and_unlocks_clocks(zeusd):
    clocks = ZeusdLockedClocks([1200], gpu_ids=[0, 2])
    clocks.set(clocks.levels()[1])
    assert zeusd["clocks"] == (["0", "2"], 0, 1200)
    clocks.restore()
    assert zeusd["clocks"] is None
