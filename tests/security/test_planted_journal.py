"""A journal of throttled devices that an attacker has put into a run directory."""

import json
import os
import socket
import subprocess
import sys

import pytest

from lightning_green.throttle import restore_left_over
from lightning_green.throttle.actuators import cpu_governor, rapl_power_limit
from lightning_green.throttle.journal import Journal
from tests.helpers.powercap import limits, packages
from tests.helpers.zeusd_server import zeusd_server


def plant(run, kind, state, arguments=None):
    """Write the journal of a process that no longer runs."""
    run.mkdir(exist_ok=True)
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    entry = {"kind": kind, "arguments": arguments or {}, "state": state}
    path = run / f"throttle.{socket.gethostname()}.json"
    path.write_text(json.dumps({"pid": None, "started": None, "boot": boot, "entries": {"x": entry}}))
    path.chmod(0o600)
    return path


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "bashrc"
    path.write_text("# mine\n")
    return path


@pytest.mark.parametrize("kind", ["CPU governor", "RAPL power limit", "cgroup cpu.max"])
def test_journal_names_no_file_to_write(tmp_path, victim, kind):
    plant(tmp_path / "run", kind, {str(victim): "evil"})
    (message,) = restore_left_over(tmp_path / "run")
    assert "could not be restored" in message
    assert victim.read_text() == "# mine\n"


def test_supervisor_writes_no_file_that_a_journal_names(tmp_path, victim):
    plant(tmp_path / "run", "CPU governor", {str(victim): "evil"})
    command = [sys.executable, "-m", "lightning_green", "run", "--run-dir", str(tmp_path / "run"), "--", "true"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "CPU governor is still throttled and could not be restored" in result.stderr
    assert victim.read_text() == "# mine\n"


@pytest.mark.parametrize(("kind", "argument"), [("RAPL power limit", "powercap"), ("CPU governor", "root")])
def test_journal_names_no_directory_of_devices(tmp_path, kind, argument):
    tree = packages(tmp_path / "tree")
    policy = tree / "policy0"
    policy.mkdir()
    (policy / "scaling_governor").write_text("performance\n")
    limit = tree / "intel-rapl:0" / "constraint_0_power_limit_uw"
    state = {str(limit if argument == "powercap" else policy / "scaling_governor"): "1"}
    plant(tmp_path / "run", kind, state, {argument: str(tree)})
    (message,) = restore_left_over(tmp_path / "run")
    assert "could not be restored" in message
    assert limits(tree) == [200.0, 150.0]
    assert (policy / "scaling_governor").read_text() == "performance\n"


@pytest.mark.parametrize("text", ["evil\nmore", "x" * 100, "../../x", None, {"a": 1}])
def test_journal_writes_only_a_setting_to_a_device(tmp_path, monkeypatch, text):
    policy = tmp_path / "cpufreq" / "policy0"
    policy.mkdir(parents=True)
    (policy / "scaling_governor").write_text("performance\n")
    monkeypatch.setattr(cpu_governor, "CPUFREQ", tmp_path / "cpufreq")
    plant(tmp_path / "run", "CPU governor", {str(policy / "scaling_governor"): text})
    restore_left_over(tmp_path / "run")
    assert (policy / "scaling_governor").read_text() == "performance\n"


def test_journal_names_no_socket_that_gets_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEUSD_TOKEN", "secret")
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "none.sock"))
    with zeusd_server(str(tmp_path / "evil.sock")) as attacker:
        arguments = {"gpu_ids": [0], "socket": str(tmp_path / "evil.sock")}
        plant(tmp_path / "run", "zeusd power limit", {"0": 300_000}, arguments)
        (message,) = restore_left_over(tmp_path / "run")
        assert attacker["seen"] == []
    assert f"zeusd does not respond at {tmp_path}/none.sock" in message


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("NVML power limit", {"GPU-aa": "x"}),
        ("zeusd power limit", {"0&x=1": 1}),
        ("zeusd power limit", {"0": [1]}),
        ("RAPL power limit", {"": None}),
        ("CPU governor\x1b[2J", {}),
    ],
)
def test_odd_entry_is_one_message(tmp_path, kind, state):
    plant(tmp_path / "run", kind, state, {"gpu_ids": None})
    assert len(restore_left_over(tmp_path / "run")) == 1


@pytest.fixture
def device(tmp_path, monkeypatch):
    """Return the directory of packages that a journal may restore."""
    tree = packages(tmp_path / "powercap")
    monkeypatch.setattr(rapl_power_limit, "POWERCAP", tree)
    return tree


def plant_for(device, run):
    return plant(run, "RAPL power limit", {str(device / "intel-rapl:0" / "constraint_0_power_limit_uw"): "9000000"})


def test_own_journal_is_believed(tmp_path, device):
    plant_for(device, tmp_path / "run")
    assert len(restore_left_over(tmp_path / "run")) == 1
    assert limits(device) == [9.0, 150.0]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_journal_that_others_can_write_is_not_believed(tmp_path, device, mode):
    plant_for(device, tmp_path / "run").chmod(mode)
    (message,) = restore_left_over(tmp_path / "run")
    assert "can be written by other users. Check them and remove the file" in message
    assert limits(device) == [200.0, 150.0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_journal_of_another_user_is_not_believed(tmp_path, device):
    os.chown(plant_for(device, tmp_path / "run"), 65534, 65534)
    (message,) = restore_left_over(tmp_path / "run")
    assert "belongs to another user" in message
    assert limits(device) == [200.0, 150.0]


@pytest.mark.parametrize("special", ["link", "fifo", "directory", "large"])
def test_journal_that_is_no_small_regular_file_is_not_believed(tmp_path, device, special):
    path = plant_for(device, tmp_path / "run")
    other = path.rename(tmp_path / "elsewhere.json")
    if special == "link":
        path.symlink_to(other)
    elif special == "fifo":
        os.mkfifo(path)
    elif special == "directory":
        path.mkdir()
    else:
        path.write_text(other.read_text() + " " * 2_000_000)
    (message,) = restore_left_over(tmp_path / "run")
    assert "are not restored" in message
    assert limits(device) == [200.0, 150.0]


def test_throttling_replaces_a_planted_journal(tmp_path):
    (tmp_path / "secret").write_text("{}")
    journal = Journal(tmp_path)
    journal.path.symlink_to(tmp_path / "secret")
    journal.save("RAPL power limit", {}, {"watts": 200})
    assert not journal.path.is_symlink()
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secret").read_text() == "{}"
