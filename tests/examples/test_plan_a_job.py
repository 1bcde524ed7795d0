"""The example that plans a job without training."""

import subprocess
import sys
from pathlib import Path

from tests.helpers.zone_archives import make_archive, write_archive

EXAMPLE = Path(__file__).parents[2] / "examples" / "plan_a_job.py"


def run(*arguments):
    line = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout


def test_corrected_forecast_gives_a_better_plan():
    published, corrected = run().strip().split("\n\n")
    assert "00:00 - Thu 05:00  run" in published
    assert "00:00 - Thu 05:00  run" not in corrected
    assert "exit" in corrected


def test_plan_from_recorded_files(tmp_path):
    actual, forecast = write_archive(make_archive(days=30), tmp_path)
    output = run("--actual", actual, "--forecast", forecast, "--now", "2023-03-22T09:00:00+00:00", "--hold-only")
    assert output.count("gCO2e per kW") >= 2
    assert "exit" not in output
