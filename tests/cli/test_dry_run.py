"""``lightning-green run --dry-run`` with real scripts, and from run directories."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.grid.recorded import spec_for_record
from lightning_green.grid.registry import build_grid
from lightning_green.ledger.events import Decision
from lightning_green.planning import Job
from lightning_green.supervisor.processes import CommandProcesses
from tests.helpers.processes import environment, green
from tests.helpers.traces import CLOCK, START, write_trace

SCRIPT = Path(__file__).parents[2] / "examples" / "minimal.py"


def invoke(*arguments):
    result = CliRunner().invoke(app, ["run", "--dry-run", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A long training that would wait: on the average day of Germany, over 36 hours."""
    monkeypatch.chdir(tmp_path)
    text = SCRIPT.read_text().replace("max_epochs=5", "max_epochs=10**6")
    Path("train.py").write_text(text)
    return Path("train.py")


@pytest.mark.slow
def test_script_is_stopped_at_its_first_plan_and_leaves_nothing(script):
    before = sorted(os.listdir())
    code, output, errors = invoke("--json", "--", sys.executable, script)
    assert code == 0, errors
    found = json.loads(output)
    assert found["job"]["work_hours"] > 0.0
    assert found["job"]["pauses"] == ["exit", "hold"]  # as under `lightning-green run`
    assert found["state"] == "not started"
    assert found["plan"]["slots"][0]["action"] in ("run", "hold", "exit")
    assert found["waits"] == (found["waited_hours"] > 0.0)
    assert sorted(os.listdir()) == before


@pytest.mark.slow
def test_script_without_a_deadline_would_not_wait(script):
    script.write_text(script.read_text().replace('deadline="36h"', ""))
    code, output, _ = invoke("--", sys.executable, script)
    assert code == 1
    assert output == 'It would not wait: there is no deadline; set one, for example deadline="36h".\n'


def test_script_that_fails_is_reported_with_its_last_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, errors = invoke("--", sys.executable, "-c", "raise SystemExit('no data')")
    assert code == 2
    assert not output
    assert "The command failed with exit code 1 before the first plan" in errors
    assert "no data" in errors


def test_command_that_trains_nothing_would_not_wait(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, _ = invoke("--", sys.executable, "-c", "pass")
    assert (code, output) == (1, "It would not wait: no training has started.\n")


def test_command_without_a_plan_in_time_is_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = invoke("--timeout", "1", "--", sys.executable, "-c", "import time; time.sleep(600)")
    assert code == 2
    assert "no plan after 1 s" in errors


@pytest.fixture
def run_dir(tmp_path):
    """A run whose scheduler has planned 2 h of work within 20 h, on a simulated clock."""

    def write(intensities):
        grid = build_grid(write_trace(tmp_path / "trace.csv", intensities))
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"schema": 1, "run_id": "a", "clock": CLOCK}))
        job = Job(2.0, START + timedelta(hours=20), hold_power=0.1).to_json()
        decision = Decision(
            action="run", work_hours=2.0, job=job, grid=spec_for_record(grid), time_utc=START.isoformat(), attempt=1
        )
        (folder / "ledger.a.jsonl").write_text(json.dumps(decision.to_json()) + "\n")
        return folder

    return write


def test_run_directory_answers_without_a_start(run_dir):
    folder = run_dir([600.0] * 6 + [50.0] * 6 + [600.0] * 12)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, output, _ = invoke("--run-dir", folder)
    assert code == 0
    assert output.startswith("It would wait 6 h, in 1 pause.\n")
    assert "Work      2 h at full power\n" in output
    assert "Deadline  2024-05-02 20:00 UTC, in 20 h" in output
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_run_directory_of_a_flat_day_would_not_wait(run_dir):
    code, output, _ = invoke("--run-dir", run_dir([300.0] * 48), "--json")
    found = json.loads(output)
    assert (code, found["waits"], found["pauses"], found["waited_hours"]) == (0, False, 0, 0.0)
    assert [slot["action"] for slot in found["plan"]["slots"]] == ["run"]


def test_missing_trace_is_explained(run_dir, tmp_path):
    folder = run_dir([300.0] * 48)
    (tmp_path / "trace.csv").unlink()
    code, _, errors = invoke("--run-dir", folder)
    assert code == 2
    assert "cannot be built again" in errors


def test_wrong_usage_is_explained(tmp_path):
    for arguments, message in [
        (["--run-dir", tmp_path], "is not a run directory"),
        ([], "The command is missing"),
        (["--clock", CLOCK, "--", "true"], "cannot be combined"),
    ]:
        code, _, errors = invoke(*arguments)
        assert code == 2
        assert message in errors
        assert len(errors.splitlines()) == 1
    result = CliRunner().invoke(app, ["run", "--json", "--", "true"])
    assert result.exit_code == 2
    assert "is for --dry-run" in result.stderr


LONG = """
import os, signal, subprocess, sys, time
if 'stubborn' in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; open('worker', 'w').close(); time.sleep(600)"],
                 start_new_session=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGTERM, []), (signal.SIGINT, []), pytest.param(signal.SIGTERM, ["stubborn"], marks=pytest.mark.nightly)],
)
def test_signal_ends_the_command_with_all_its_processes(tmp_path, number, words):
    (tmp_path / "train.py").write_text(LONG)
    command = green("run", "--dry-run", "--", sys.executable, "train.py", *words)
    started = subprocess.Popen(command, cwd=tmp_path, env=environment(TMPDIR=str(tmp_path)))
    limit = time.monotonic() + 60
    while not list(tmp_path.glob("lightning_green_dry_run_*/tree/*/worker")) and time.monotonic() < limit:
        time.sleep(0.1)
    (copy,) = tmp_path.glob("lightning_green_dry_run_*")
    processes = CommandProcesses(copy / "run")
    assert processes.are_running()
    started.send_signal(number)
    assert started.wait(60) != 0
    assert not processes.are_running()
