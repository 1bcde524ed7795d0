"""Locked clocks through zeusd, with a local server on a Unix socket."""

from lightning_green.throttle.actuators.zeusd_locked_clocks import ZeusdLockedClocks


def test_locks_and_unlocks_clocks(zeusd):
    clocks = ZeusdLockedClocks([1200], gpu_ids=[0, 2])
    clocks.set(clocks.levels()[1])
    assert zeusd["clocks"] == (["0", "2"], 0, 1200)
    clocks.restore()
    assert zeusd["clocks"] is None
