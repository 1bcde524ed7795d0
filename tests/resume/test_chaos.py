"""Trainings that the chaos benchmark kills once by each of its methods end like the uninterrupted ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
METHODS = 14


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(1600)
def test_runs_killed_by_every_method_end_like_an_uninterrupted_run(tmp_path):
    options = ["--kills", str(METHODS), "--jobs", "2", "--seed", "2", "--json", "--keep", str(tmp_path)]
    done = subprocess.run([sys.executable, str(CHAOS), *options], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert len(figures["kills_by_method"]) == METHODS, done.stderr
    assert figures["exact"] == figures["runs"] >= METHODS // 3, done.stderr
    assert all(figures["runs_with"].values())
    for fault in ("lost_steps_of_stops", "corrupt", "orphans", "false_exit_codes", "recreated_directories"):
        assert figures[fault] == 0, done.stderr
    assert figures["lost_steps_max"] <= 20  # a state every 4 steps; on a busy machine, kills come later than intended
