"""Exit code and exception of a planned exit."""

import subprocess
import sys

import pytest

from lightning_green.supervisor.launchers import PAUSED_EXIT_CODE, RunPausedExit, paused_exit_code
from tests.helpers.processes import environment


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
def test_exit_code_is_75_on_rank_0_and_0_under_torchrun(rank, variables, code):
    assert paused_exit_code(rank, variables) == code


def test_planned_exit_ends_process_with_its_code_and_without_traceback():
    script = "from lightning_green.supervisor.launchers import *; raise RunPausedExit(paused_exit_code(0, {}))"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, timeout=60)
    assert done.returncode == PAUSED_EXIT_CODE == 75
    assert done.stderr == b""


def test_except_exception_does_not_catch_planned_exit():
    assert not issubclass(RunPausedExit, Exception)
