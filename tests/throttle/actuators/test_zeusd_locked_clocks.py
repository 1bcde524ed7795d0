"""Locked clocks through zeusd, with a local server on a Unix socket."""

from lightning_green.throttle.actuators.zeusd_locked_clocks import ZeusdLockedClocks


def routes(zeusd):
    return [route.removeprefix("/gpu/") for method, route, _ in zeusd["seen"] if method == "POST"]


def test_locks_and_unlocks_clocks(zeusd):
    clocks = ZeusdLockedClocks([1200], gpu_ids=[0, 2])
    clocks.set(clocks.levels()[1])
    assert zeusd["clocks"] == {"0": (0, 1200), "2": (0, 1200)}
    clocks.restore()
    assert zeusd["clocks"] == {"0": None, "2": None}


def test_lower_bound_of_the_lock_can_be_given(zeusd):
    clocks = ZeusdLockedClocks([1200], gpu_ids=[0], lowest=210)
    clocks.set(clocks.levels()[1])
    assert zeusd["clocks"] == {"0": (210, 1200)}
    clocks.restore()


def test_clocks_that_cannot_be_unlocked_are_not_locked(zeusd, tmp_path, caplog):
    zeusd["root"] = False
    zeusd["overrides"]["set_gpu_locked_clocks"] = {"commands": ["touch locked.{gpu_id}"], "folder": tmp_path}
    clocks = ZeusdLockedClocks([1200], gpu_ids=[0])
    clocks.bind(tmp_path)
    assert not clocks.set(clocks.levels()[1])
    assert not (tmp_path / "locked.0").exists()
    assert list(tmp_path.glob("throttle.*.json")) == []
    (record,) = caplog.records
    assert "zeusd lacks the permission for /gpu/reset_gpu_locked_clocks" in record.getMessage()
    assert "--gpu-command-overrides" in record.getMessage()
    assert clocks.restore()


def test_all_locks_are_removed_if_zeusd_has_only_that_command(zeusd, tmp_path):
    zeusd["root"] = False
    zeusd["overrides"]["set_gpu_locked_clocks"] = {"commands": ["touch locked.{gpu_id}"], "folder": tmp_path}
    zeusd["overrides"]["reset_locked_clocks"] = {"commands": ["rm -f locked.{gpu_id}"], "folder": tmp_path}
    clocks = ZeusdLockedClocks([1200], gpu_ids=[2])
    assert clocks.set(clocks.levels()[1])
    assert (tmp_path / "locked.2").exists()
    assert clocks.restore()
    assert not (tmp_path / "locked.2").exists()


def test_command_that_fails_halfway_is_undone(zeusd, tmp_path):
    commands = {"commands": ["touch locked.{gpu_id}", "false", "touch never"], "folder": tmp_path}
    zeusd["overrides"]["set_gpu_locked_clocks"] = commands
    zeusd["overrides"]["reset_gpu_locked_clocks"] = {"commands": ["rm -f locked.{gpu_id}"], "folder": tmp_path}
    clocks = ZeusdLockedClocks([1200], gpu_ids=[0])
    assert not clocks.set(clocks.levels()[1])
    assert "command 'false' exited with code 1" in clocks.problem
    assert list(tmp_path.glob("locked.*")) == []
    assert routes(zeusd) == ["reset_gpu_locked_clocks", "set_gpu_locked_clocks", "reset_gpu_locked_clocks"]
