"""Output of ``lightning-green status`` for a run in every state, with real ledgers and locks."""

import os
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from lightning_green.ledger.release_record import write_release
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.run_state import RunState, describe_next, describe_state
from lightning_green.report.status import status_text
from tests.helpers.fake_runs import FakeRun, at
from tests.helpers.processes import Process, green, run_to_the_end

FAKE = Path(__file__).parents[1] / "helpers" / "fake_training.py"


@pytest.fixture
def run(tmp_path):
    return FakeRun(tmp_path / "run")


def test_run_without_events_has_not_started(run):
    assert run.lines()["State"] == "not started yet"


def test_command_that_ended_without_a_training(run):
    failed = status_text(RunDirectory(run.folder.path), exit_code=1)
    assert "failed before its first training; its error output is in" in failed
    assert "ended without a recorded training" in status_text(RunDirectory(run.folder.path), exit_code=0)
    run.add("started", 0).add("finished", 7)
    assert "finished at step 7" in status_text(RunDirectory(run.folder.path), exit_code=1)


def test_running_and_throttled(run):
    run.add("started", 0).add("sample", 120)
    run.folder.lock("run")
    assert run.lines()["State"] == "running, at step 120"
    run.add("state", 130, state="throttled")
    assert run.lines()["State"] == "throttled, at step 130"
    run.folder.unlock()


def test_held_run_has_end_of_pause(run):
    run.add("started", 0).add("state", 40, state="held", until=at(9)).add("sample", 40, state="held")
    run.folder.lock("run")
    assert run.lines()["State"] == "held in process at step 40 until 2024-05-02 09:00 UTC"
    run.folder.unlock()


def test_killed_run_has_last_step(run):
    run.add("started", 0).add("sample", 120)
    assert run.lines()["State"] == "killed at about step 120; rerun the same command to continue"


def test_exited_run_has_next_start_and_supervisor(run):
    run.add("started", 0).add("paused", 40, until=at(9))
    assert run.lines()["State"] == (
        "exited at step 40 until 2024-05-02 09:00 UTC, in 7 h; no supervisor is waiting, so restart it manually"
    )
    write_release(run.folder.path, "SLURM job 7")
    assert run.lines()["State"] == "exited at step 40 until 2024-05-02 09:00 UTC, in 7 h; SLURM job 7 starts it again"
    run.folder.lock("supervisor")
    assert run.lines()["State"] == "exited at step 40 until 2024-05-02 09:00 UTC, in 7 h"
    run.add("decision", 40, state="out", until=at(6), action="exit", reason="Exit until 06:00.")  # new plan
    assert run.lines()["State"] == "exited at step 40 until 2024-05-02 06:00 UTC, in 3 h"
    run.folder.unlock()


@pytest.mark.parametrize(
    ("by", "hours", "expected"),
    [
        ("SLURM job 7", 0.9, "; SLURM job 7 starts it again"),
        ("SLURM job 7", 1.1, "; SLURM job 7 should have started it. Check `squeue`, or rerun the command"),
        ("Kubernetes Job a", 9.0, "; Kubernetes Job a should have started it. Check `kubectl get jobs`"),
    ],
)
def test_job_that_has_not_started_the_run_is_reported(by, hours, expected):
    until = datetime.fromisoformat(at(5))
    state, now = RunState("exited", 40, until, restarted_by=by), until + timedelta(hours=hours)
    assert expected in describe_state(state, now)
    assert describe_next(state, now).startswith("resumes" if hours < 1.0 else f"check {by} with `")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("finished", "80 steps done"),
        ("interrupted", "SIGTERM: saved at step 80"),
        ("failed", "RuntimeError: loss is nan"),
    ],
)
def test_ended_run_has_reason(run, event, reason):
    run.add("started", 0).add(event, 80, reason=reason)
    assert run.lines()["State"] == f"{event} at step 80: {reason}"


def test_last_decision_deadline_and_totals_are_shown(run):
    run.add("started", 0).add("decision", 3, reason="Run now: clean.", deadline=at(36))
    run.add("state", 3, state="held", until=at(5)).add("decision", 3, state="held", reason="Hold.", deadline=at(36))
    run.add("state", 3).add("finished", 80)
    lines = run.lines()
    assert lines["Decision"] == "Hold."
    assert lines["Deadline"] == "2024-05-03 12:00 UTC"
    assert lines["Energy"] == "1.500 kWh: cpu 0.3750 kWh (modelled), gpu 1.125 kWh (measured)"
    assert lines["Emissions"] == "600.0 gCO2e (average/lifecycle)"
    assert lines["Time"] == "5 h since the first start, 2 h of it waiting, 0 planned exits, 1 start"


def test_run_without_plan_and_intensity_omits_them(run):
    run.add("started", 0, intensity=None)
    assert not {"Decision", "Deadline", "Emissions"} & set(run.lines())


def test_status_does_not_change_files(run):
    run.add("started", 0).add("paused", 40, until=at(9))
    before = {path.name: path.read_bytes() for path in run.folder.path.iterdir() if path.is_file()}
    run.lines()
    assert {path.name: path.read_bytes() for path in run.folder.path.iterdir() if path.is_file()} == before


def test_command_reports_whether_the_supervisor_is_waiting(tmp_path):
    path = tmp_path / "run"
    with Process(green("run", "--run-dir", path, "--", sys.executable, FAKE, "pause", "finish"), tmp_path) as process:
        process.until(lambda: "Exited until" in process.printed)
        code, output = run_to_the_end(green("status", path), tmp_path)
        assert code == 0, output
        assert "exited at step 3 until" in output
        assert "in 5 h" in output or "in 4 h 59 min" in output
        assert "no supervisor" not in output
        os.kill(process.process.pid, signal.SIGKILL)
        process.wait()
    code, output = run_to_the_end(green("status", path), tmp_path)
    assert "no supervisor is waiting, so restart it manually" in output
