"""What ``lightning-green status`` says about a run in every state, from real ledgers and real locks."""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.status import status_text
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.ledgers import make_event
from tests.helpers.processes import Process, green, run_to_the_end
from tests.helpers.traces import START

FAKE = Path(__file__).parents[1] / "helpers" / "fake_training.py"


class Story:
    """A run whose ledger is written event by event, on a clock that each event moves by an hour."""

    def __init__(self, path):
        self.folder, self.clock = RunDirectory(path), SimulatedClock(START)
        self.folder.record["clock"] = self.clock.spec()
        self.folder.save()
        self.clock.bind(path)
        self.ledger, self.joules = Ledger(path, self.clock, 1, node="a"), 0.0

    def tell(self, event, step, state="running", **fields):
        joules = {"cpu": {"value": self.joules / 4, "quality": "modelled"}}
        joules["gpu"] = {"value": self.joules * 3 / 4, "quality": "measured"}
        intensity = {"value": 400.0, "kind": "average/lifecycle"}
        common = {"state": state, "phase": "training", "joules": joules, "intensity": intensity, "reason": ""}
        self.ledger.append(make_event(event, global_step=step, **{**common, **fields}))
        self.clock.sleep(3600)
        self.joules += 0.3 * 3.6e6
        return self

    def lines(self):
        return dict(line.split(None, 1) for line in status_text(RunDirectory(self.folder.path)).splitlines())


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path / "run")


def at(hours):
    return (START + timedelta(hours=hours)).isoformat()


def test_before_the_first_start(story):
    assert story.lines()["State"] == "not started yet"


def test_running(story):
    story.tell("started", 0).tell("sample", 120)
    story.folder.lock("run")
    assert story.lines()["State"] == "running, at step 120"
    story.tell("state", 130, state="throttled")
    assert story.lines()["State"] == "throttled, at step 130"
    story.folder.unlock()


def test_held_tells_until_when(story):
    story.tell("started", 0).tell("state", 40, state="held", until=at(9)).tell("sample", 40, state="held")
    story.folder.lock("run")
    assert story.lines()["State"] == "held in process at step 40 until 2024-05-02 09:00 UTC"
    story.folder.unlock()


def test_killed(story):
    story.tell("started", 0).tell("sample", 120)
    assert story.lines()["State"] == "killed at about step 120; rerun the same command to continue"


def test_out_tells_until_when_and_whether_somebody_waits(story):
    story.tell("started", 0).tell("paused", 40, until=at(9))
    assert story.lines()["State"] == (
        "exited at step 40 until 2024-05-02 09:00 UTC, in 7 h; no supervisor is waiting, so restart it manually"
    )
    story.folder.lock("supervisor")
    assert story.lines()["State"] == "exited at step 40 until 2024-05-02 09:00 UTC, in 7 h"
    story.tell("decision", 40, state="out", until=at(6), action="exit", reason="Exit until 06:00.")  # planned again
    assert story.lines()["State"] == "exited at step 40 until 2024-05-02 06:00 UTC, in 3 h"
    story.folder.unlock()


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("finished", "80 steps done"),
        ("interrupted", "SIGTERM: saved at step 80"),
        ("failed", "RuntimeError: loss is nan"),
    ],
)
def test_ended(story, event, reason):
    story.tell("started", 0).tell(event, 80, reason=reason)
    assert story.lines()["State"] == f"{event} at step 80: {reason}"


def test_the_last_decision_the_deadline_and_the_totals(story):
    story.tell("started", 0).tell("decision", 3, reason="Run now: clean.", deadline=at(36))
    story.tell("state", 3, state="held", until=at(5)).tell("decision", 3, state="held", reason="Hold.", deadline=at(36))
    story.tell("state", 3).tell("finished", 80)
    lines = story.lines()
    assert lines["Decision"] == "Hold."
    assert lines["Deadline"] == "2024-05-03 12:00 UTC"
    assert lines["Energy"] == "1.5000 kWh: cpu 0.3750 kWh (modelled), gpu 1.1250 kWh (measured)"
    assert lines["Emitted"] == "600.0 gCO2e (average/lifecycle)"
    assert lines["Time"] == "5 h since the first start, 2 h of it waiting, 0 planned exits, 1 start"


def test_a_run_without_a_plan_or_a_price_names_neither(story):
    story.tell("started", 0, intensity=None)
    assert not {"Decision", "Deadline", "Emitted"} & set(story.lines())


def test_looking_changes_nothing(story):
    story.tell("started", 0).tell("paused", 40, until=at(9))
    before = {path.name: path.read_bytes() for path in story.folder.path.iterdir() if path.is_file()}
    story.lines()
    assert {path.name: path.read_bytes() for path in story.folder.path.iterdir() if path.is_file()} == before


def test_the_command_while_the_supervisor_waits_and_after_it_was_killed(tmp_path):
    run = tmp_path / "run"
    with Process(green("run", "--run-dir", run, "--", sys.executable, FAKE, "pause", "finish"), tmp_path) as process:
        process.until(lambda: "Exited until" in process.told)
        code, told = run_to_the_end(green("status", run), tmp_path)
        assert code == 0, told
        assert "exited at step 3 until" in told
        assert "in 5 h" in told or "in 4 h 59 min" in told
        assert "no supervisor" not in told
        os.kill(process.process.pid, signal.SIGKILL)
        process.wait()
    code, told = run_to_the_end(green("status", run), tmp_path)
    assert "no supervisor is waiting, so restart it manually" in told
