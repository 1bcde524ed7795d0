"""Trainings in processes of their own that measure levels, use one, and end in different ways."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_green.throttle import restore_left_over
from lightning_green.throttle.actuators import rapl_power_limit
from tests.helpers.ledgers import read_records
from tests.helpers.powercap import package_with_counter

ROOT = Path(__file__).parents[2]
SUPERVISOR = """
import sys
from lightning_green.cli.main import app
from lightning_green.throttle.actuators import rapl_power_limit
rapl_power_limit.POWERCAP = sys.argv.pop(1)
app()
"""


def start(tmp_path, *ending, supervised=False):
    script = [
        sys.executable,
        str(ROOT / "tests" / "throttle" / "throttled_training.py"),
        str(tmp_path / "tree"),
        *ending,
    ]
    supervisor = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "tree"), "run", "--run-dir", str(tmp_path / "run")]
    supervisor += ["--max-restarts", "0", "--"]
    return subprocess.Popen(
        [*(supervisor if supervised else []), *script],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "LIGHTNING_GREEN_RUN_DIR": str(tmp_path / "run"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )


@pytest.mark.slow
def test_training_measures_levels_and_uses_least_energy(tmp_path):
    limit = package_with_counter(tmp_path / "tree")
    child = start(tmp_path, "finish")
    output, _ = child.communicate(timeout=200)
    assert child.returncode == 0, output
    records = read_records(tmp_path / "run")
    (throttled,) = [record for record in records if record.get("state") == "throttled" and record["event"] == "state"]
    assert throttled["reason"] == "the least energy per step"
    assert throttled["power"] < 0.95
    assert throttled["speed"] > 0.8
    assert limit.read_text() == "200000000\n"
    assert list((tmp_path / "run").glob("throttle.*")) == []


@pytest.mark.slow
def test_planner_uses_measured_levels(tmp_path):
    limit = package_with_counter(tmp_path / "tree")
    child = start(tmp_path, "plan")
    output, _ = child.communicate(timeout=200)
    assert child.returncode == 0, output
    records = read_records(tmp_path / "run")
    decisions = [record for record in records if record["event"] == "decision"]
    (throttled,) = [record for record in records if record.get("state") == "throttled" and record["event"] == "state"]
    assert decisions[0]["action"] == "run"  # while the levels were measured
    (chosen,) = [record for record in decisions if record["action"] == "throttle"]
    assert throttled["reason"] == chosen["reason"]
    assert throttled["level"] == chosen["level"] == f"{throttled['power']:g}:{throttled['speed']:g}"
    assert throttled["power"] < 0.95
    assert chosen["saving"] == pytest.approx(1.0 - throttled["power"] / throttled["speed"], abs=0.02)
    assert limit.read_text() == "200000000\n"


@pytest.mark.sampled(every=3)
@pytest.mark.slow
@pytest.mark.parametrize(("ending", "number"), [("raise", None), ("", signal.SIGTERM), ("wait", signal.SIGKILL)])
def test_every_end_of_throttled_training_restores_device(tmp_path, monkeypatch, ending, number):
    monkeypatch.setattr(rapl_power_limit, "POWERCAP", tmp_path / "tree")
    limit = package_with_counter(tmp_path / "tree")
    child = start(tmp_path, ending or "run")
    for line in child.stdout:
        if line == "throttled\n":
            break
    else:
        pytest.fail("the training was never throttled")
    if number is not None:
        assert limit.read_text() == "150000000\n"
        child.send_signal(number)
    child.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert limit.read_text() == "150000000\n"
        assert len(restore_left_over(tmp_path / "run")) == 1
    assert limit.read_text() == "200000000\n"


@pytest.mark.slow
def test_supervisor_restores_device_after_kill(tmp_path):
    limit = package_with_counter(tmp_path / "tree")
    supervisor = start(tmp_path, "wait", supervised=True)
    for line in supervisor.stdout:
        if line == "throttled\n":
            break
    else:
        pytest.fail("the training was never throttled")
    assert limit.read_text() == "150000000\n"
    training = read_records(tmp_path / "run")[-1]["pid"]
    assert training != supervisor.pid
    os.kill(training, signal.SIGKILL)
    output, _ = supervisor.communicate(timeout=60)  # without a restart, only the supervisor can restore the device
    assert supervisor.returncode != 0
    assert limit.read_text() == "200000000\n"
    assert "RAPL power limit was still throttled after its process had ended" in output
    assert list((tmp_path / "run").glob("throttle.*")) == []
