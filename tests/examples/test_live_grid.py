"""examples/live_grid.py."""

import csv
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_example_trains_with_a_recorded_file(tmp_path, monkeypatch):
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    with open(tmp_path / "de.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["datetime", "carbon_intensity", "quality"])
        for ahead in range(-2, 48):
            writer.writerow([(hour + timedelta(hours=ahead)).isoformat(), 250, "forecast" if ahead > 0 else "measured"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, str(ROOT / "examples/live_grid.py"), "--source", "file:de.csv", "--zone", "DE"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    output = ended.stdout + ended.stderr
    assert ended.returncode == 0, output
    assert "file de.csv, average/lifecycle, zone DE" in output
    assert "y = 1.99 x + 1.00" in output
    assert "'carbon/unpriced_kwh': 0.0" in output
    assert "'carbon/gco2e': None" not in output
