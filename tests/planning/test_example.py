"""The example that plans without training."""

import subprocess
import sys
from pathlib import Path

from tests.planning.archives import archive, write

EXAMPLE = Path(__file__).parents[2] / "examples" / "plan_a_job.py"


def run(*arguments):
    line = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_correction_changes_the_plan_for_the_better():
    published, corrected = run().strip().split("\n\n")
    assert "00:00 - Thu 05:00  run" in published
    assert "00:00 - Thu 05:00  run" not in corrected
    assert "exit" in corrected


def test_from_files(tmp_path):
    actual, forecast = write(archive(days=30), tmp_path)
    told = run("--actual", actual, "--forecast", forecast, "--now", "2023-03-22T09:00:00+00:00", "--hold-only")
    assert told.count("gCO2e per kW") >= 2
    assert "exit" not in told
