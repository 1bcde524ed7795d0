"""The example prints the same last line with and without an interruption."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "exact_resume.py"


def start(folder):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTNING_GREEN_")}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "LIGHTNING_GREEN_RUN_DIR": str(folder / "run"),
        "LIGHTNING_GREEN_RESUME": "1",
    }
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE), "30"], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE
    )


def last_line(child):
    output, _ = child.communicate(timeout=300)
    return output.strip().splitlines()[-1]


@pytest.mark.slow
def test_example_resumes_exactly_after_a_signal(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = last_line(start(tmp_path / "whole"))
    assert whole.startswith("weights: ")
    child = start(tmp_path / "parts")
    while not any('"event": "started"' in path.read_text() for path in (tmp_path / "parts" / "run").glob("ledger.*")):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert any((tmp_path / "parts" / "run" / "checkpoints").glob("fit0-step*.ckpt"))
    assert last_line(start(tmp_path / "parts")) == whole
