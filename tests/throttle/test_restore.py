"""Restoring devices after every end of a process, with real processes."""

import json
import logging
import signal

import pytest

from lightning_green.throttle import restore_left_over
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.controller import ThrottleController
from tests.helpers.powercap import limits, packages
from tests.helpers.throttled_process import kill_throttled_process, start


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_devices_of_killed_process_are_restored(tmp_path, number):
    folder = packages(tmp_path / "powercap")
    child = start(folder, tmp_path, "time.sleep(60)")
    assert limits(folder) == [100.0, 100.0]
    assert restore_left_over(tmp_path) == []  # the process still runs
    assert limits(folder) == [100.0, 100.0]
    child.send_signal(number)
    child.wait(10)
    assert limits(folder) == [100.0, 100.0]
    (line,) = restore_left_over(tmp_path)
    assert "RAPL power limit was still throttled" in line
    assert limits(folder) == [200.0, 150.0]
    assert restore_left_over(tmp_path) == []
    child.communicate()


@pytest.mark.parametrize("ending", ["", "raise RuntimeError('x')", "sys.exit(75)"])
def test_ending_process_restores_devices(tmp_path, ending):
    folder = packages(tmp_path / "powercap")
    child = start(folder, tmp_path, ending)
    child.communicate(timeout=20)
    assert limits(folder) == [200.0, 150.0]
    assert list(tmp_path.glob("throttle.*")) == []


def test_next_process_restores_before_it_reads_original_state(tmp_path, caplog):
    folder = packages(tmp_path / "powercap")
    for _ in range(2):
        child = start(folder, tmp_path, "time.sleep(60)")
        child.kill()
        child.communicate()
    cap = RaplPowerLimit([50], powercap=folder)
    with caplog.at_level(logging.WARNING):
        ThrottleController(cap).start(tmp_path, None, "model", on_gpu=False)
    assert "RAPL power limit was still throttled" in caplog.records[0].getMessage()
    assert limits(folder) == [200.0, 150.0]
    assert [level.value for level in cap.levels()] == [150.0, 50.0]


def test_failed_restore_keeps_journal(tmp_path):
    folder = packages(tmp_path / "powercap")
    kill_throttled_process(folder, tmp_path)
    limit = folder / "intel-rapl:0" / "constraint_0_power_limit_uw"
    limit.unlink()
    limit.mkdir()
    (line,) = restore_left_over(tmp_path)
    assert "could not be restored" in line
    limit.rmdir()
    assert len(restore_left_over(tmp_path)) == 1
    assert limits(folder) == [200.0, 150.0]


def test_node_restores_devices_of_another_node_number(tmp_path):
    folder = packages(tmp_path / "powercap")
    file = kill_throttled_process(folder, tmp_path)  # the journal of a run with one node
    file.rename(tmp_path / file.name.replace(".json", ".1.json"))
    (line,) = restore_left_over(tmp_path, "0")
    assert "RAPL power limit was still throttled" in line
    assert limits(folder) == [200.0, 150.0]
    assert list(tmp_path.glob("throttle.*.json")) == []


def write_entry(folder, run, kind, arguments, state):
    """Replace the entry in the journal of a killed process."""
    file = kill_throttled_process(folder, run)
    content = json.loads(file.read_text())
    content["entries"] = {"x": {"kind": kind, "arguments": arguments, "state": state}}
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("kind", "arguments", "reason"),
    [
        ("rack power limit", {}, "no actuator is registered as 'rack-power-limit'"),
        ("NVML power limit", {"rack": 3}, "the actuator 'nvml-power-limit' cannot be created"),
        ("RAPL power limit", {"rack": 3}, "watts is not a file of this device"),
    ],
)
def test_unknown_actuator_in_journal_is_reported_and_kept(tmp_path, kind, arguments, reason):
    file = write_entry(packages(tmp_path / "powercap"), tmp_path, kind, arguments, {"watts": 200})
    (message,) = restore_left_over(tmp_path)
    assert f"{kind} is still throttled and could not be restored to {{'watts': 200}}" in message
    assert reason in message
    assert file.exists()
