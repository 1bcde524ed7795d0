"""Trainings of two and three ranks that are stopped end like uninterrupted ones, or report that they would not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RANKS = Path(__file__).parents[2] / "benchmarks" / "ranks.py"
pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(1600)]


def figures(folder, pattern):
    options = ["--only", pattern, "--json", "--keep", str(folder)]
    done = subprocess.run([sys.executable, str(RANKS), *options], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [found[name] for name in ("silent", "failed", "orphans", "hangs")] == [0, 0, 0, 0], done.stderr
    return found


@pytest.mark.nightly
def test_stopped_trainings_end_like_uninterrupted_ones(tmp_path):
    cases = "ddp-3, ddp_powersgd-2, ddp_feedback-3, ddp_local_sgd-3, ddp_states-2, ddp_streams-2, ddp_two_fits-2"
    found = figures(tmp_path, f"^({'|'.join(cases.split(', '))})-exit$")
    assert found["exact"] == found["cases"] == 7, found["not_exact"]


def test_static_graph_is_reported_with_three_ranks(tmp_path):
    found = figures(tmp_path, "^ddp_static-3-exit$")
    assert found["reported"] == 1
    assert "`static_graph=True` sums the gradients" in found["not_exact"]["ddp_static-3-exit"]
