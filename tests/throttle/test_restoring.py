"""Each way to end, against real processes: what was found is there again."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lightning_green.throttle import restore_left_over
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from tests.throttle.trees import limits, packages

ROOT = Path(__file__).parents[2]

CHILD = """
import os, signal, sys, time
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
cap = RaplPowerLimit([100], powercap=sys.argv[1])
cap.bind(__import__("pathlib").Path(sys.argv[2]))
assert cap.set(cap.levels()[-1])
print("throttled", flush=True)
"""


def start(folder, run, ending):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD + textwrap.dedent(ending), str(folder), str(run)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "throttled\n", child.stderr.read()
    return child


def left_by_a_kill(folder, run):
    """Throttle in a process that is killed; return the journal that it left."""
    child = start(folder, run, "time.sleep(60)")
    child.kill()
    child.communicate()
    (file,) = run.glob("throttle.*.json")
    return file


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_cleaned_up_after(tmp_path, number):
    folder = packages(tmp_path / "powercap")
    child = start(folder, tmp_path, "time.sleep(60)")
    assert limits(folder) == [100.0, 100.0]
    assert restore_left_over(tmp_path) == []  # it is alive: what it set is meant
    assert limits(folder) == [100.0, 100.0]
    child.send_signal(number)
    child.wait(10)
    assert limits(folder) == [100.0, 100.0]
    (line,) = restore_left_over(tmp_path)
    assert "RAPL power limit was left throttled" in line
    assert limits(folder) == [200.0, 150.0]
    assert restore_left_over(tmp_path) == []
    child.communicate()


@pytest.mark.parametrize("ending", ["", "raise RuntimeError('x')", "sys.exit(75)"])
def test_a_process_that_ends_restores(tmp_path, ending):
    folder = packages(tmp_path / "powercap")
    child = start(folder, tmp_path, ending)
    child.communicate(timeout=20)
    assert limits(folder) == [200.0, 150.0]
    assert list(tmp_path.glob("throttle.*")) == []


def test_the_next_process_of_the_run_restores_before_it_takes_anything_for_found(tmp_path):
    folder = packages(tmp_path / "powercap")
    for _ in range(2):
        child = start(folder, tmp_path, "time.sleep(60)")
        child.kill()
        child.communicate()
    cap = RaplPowerLimit([50], powercap=folder)
    cap.bind(tmp_path)
    assert limits(folder) == [200.0, 150.0]
    assert [level.value for level in cap.levels()] == [150.0, 50.0]


def test_after_a_restart_of_the_machine_nothing_is_written(tmp_path):
    folder = packages(tmp_path / "powercap")
    file = left_by_a_kill(folder, tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "another"}))
    assert restore_left_over(tmp_path) == []
    assert limits(folder) == [100.0, 100.0]


def test_what_cannot_be_restored_stays_on_record(tmp_path):
    folder = packages(tmp_path / "powercap")
    left_by_a_kill(folder, tmp_path)
    limit = folder / "intel-rapl:0" / "constraint_0_power_limit_uw"
    limit.unlink()
    limit.mkdir()
    (line,) = restore_left_over(tmp_path)
    assert "could not be brought back" in line
    limit.rmdir()
    assert len(restore_left_over(tmp_path)) == 1
    assert limits(folder) == [200.0, 150.0]


def test_where_the_state_cannot_be_written_down_nothing_is_changed(tmp_path):
    folder = packages(tmp_path / "powercap")
    cap = RaplPowerLimit([100], powercap=folder)
    cap.bind(tmp_path / "missing")
    assert not cap.set(cap.levels()[1])
    assert limits(folder) == [200.0, 150.0]
