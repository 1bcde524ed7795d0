"""Who starts a run again, and which code a planned exit leaves with."""

import subprocess
import sys

import pytest

from lightning_green.supervisor.launchers import PAUSED_EXIT_CODE, RunPausedExit, paused_exit_code, who_restarts
from tests.helpers.processes import environment


def test_nobody_starts_a_script_again_that_was_started_by_hand():
    assert who_restarts({}) is None
    assert who_restarts({"LIGHTNING_GREEN_SUPERVISED": ""}) is None
    assert who_restarts({"LIGHTNING_GREEN_RUN_DIR": "run", "LIGHTNING_GREEN_RESUME": "1"}) is None


def test_the_supervisor_is_recognised_by_what_it_sets(monkeypatch):
    assert who_restarts({"LIGHTNING_GREEN_SUPERVISED": "4711"}) == "lightning-green run"
    assert who_restarts() is None
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    assert who_restarts() == "lightning-green run"


@pytest.mark.parametrize(
    ("rank", "variables", "code"),
    [
        (0, {}, 75),
        (1, {}, 0),
        (7, {}, 0),
        (0, {"TORCHELASTIC_RUN_ID": "none"}, 0),
        (1, {"TORCHELASTIC_RUN_ID": "none"}, 0),
    ],
)
def test_the_code_of_a_planned_exit(rank, variables, code):
    assert paused_exit_code(rank, variables) == code


def test_a_planned_exit_ends_the_process_with_its_code_and_without_a_traceback():
    script = "from lightning_green.supervisor.launchers import *; raise RunPausedExit(paused_exit_code(0, {}))"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, timeout=60)
    assert done.returncode == PAUSED_EXIT_CODE == 75
    assert done.stderr == b""


def test_a_user_s_except_exception_does_not_swallow_it():
    assert not issubclass(RunPausedExit, Exception)
