"""Twelve runs of the chaos benchmark, killed at random moments, end like the uninterrupted run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(1600)
def test_runs_killed_at_random_end_like_an_uninterrupted_run(tmp_path):
    options = ["--kills", "12", "--most", "1", "--jobs", "2", "--seed", "2", "--json", "--keep", str(tmp_path)]
    done = subprocess.run([sys.executable, str(CHAOS), *options], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["kills"], figures["exact"], figures["corrupt"]) == (12, 12, 0), done.stderr
    assert figures["runs_of_two_ranks"] == 3
    assert figures["lost_steps_max"] <= 20  # a state every 4 steps; on a busy machine, kills come later than intended
