"""Random scripts with random interruptions: each fit ends like that of the uninterrupted script."""

import json
import subprocess
import sys

import pytest

from tests.helpers.processes import ROOT, environment


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_generated_scripts_end_like_uninterrupted_ones(tmp_path):
    options = ["--scripts", "6", "--seed", "7", "--jobs", "2", "--json", "--keep", str(tmp_path)]
    command = [sys.executable, str(ROOT / "benchmarks" / "identity.py"), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=1400)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["exact"] == found["scripts"] == 6, done.stderr
    assert {name: found[name] for name in ("mistaken", "skipped", "false_success", "failed")} == {
        "mistaken": 0,
        "skipped": 0,
        "false_success": 0,
        "failed": 0,
    }
    assert found["continued"] > 0
    assert found["not_continued"] == 0
