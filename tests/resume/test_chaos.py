"""A few runs of the chaos benchmark: killed at random moments, each ends as the one that nobody touched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.slow
def test_killed_at_random(tmp_path):
    done = subprocess.run(
        [sys.executable, str(CHAOS), "--kills", "3", "--seed", "2", "--json", "--keep", str(tmp_path)],
        capture_output=True, text=True, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] >= 3, done.stderr
    assert (figures["exact"], figures["corrupt"]) == (3, 0), done.stderr
    assert figures["lost_steps_max"] <= 5  # the state is saved after the first batch past four minutes
