"""Trainings in separate processes that are killed by SIGKILL, with and without data workers."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.helpers.resume_training import Case, differences, outcome, repeated

ROOT = Path(__file__).parents[2]


def process(folder, case, stop=None):
    """Train in a process of its own; return its exit code."""
    words = [sys.executable, "-m", "tests.helpers.resume_training", str(folder), json.dumps(asdict(case))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **({"STOP": stop} if stop else {})}
    done = subprocess.run(
        words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, start_new_session=True
    )
    assert done.returncode != 1 or "KeyboardInterrupt" in done.stderr, done.stderr
    return done.returncode


@pytest.mark.sampled(every=2)
@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_after_sigkill_is_exact(workers, tmp_path):
    case = Case(save_every="2m", workers=workers)
    assert process(tmp_path / "whole", case) == 0
    for where in ("batch:4", "batch:9"):
        assert process(tmp_path / "parts", case, f"kill@{where}") == -signal.SIGKILL
    assert process(tmp_path / "parts", case) == 0
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "parts")) == []
    assert repeated(tmp_path / "parts") <= 4


@pytest.mark.sampled(every=2)
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["group-term", "group-int"])
def test_signal_to_the_data_workers_too_loses_no_step(kind, tmp_path):
    case = Case(save_every="2m", workers=2)
    assert process(tmp_path / "whole", case) == 0
    for where in ("batch:4", "batch:9"):
        process(tmp_path / "parts", case, f"{kind}@{where}")
    assert process(tmp_path / "parts", case) == 0
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "parts")) == []
    assert repeated(tmp_path / "parts") == 0
