"""Trainings on data pipelines that keep a state, stopped three times: exact, or reported before the first stop."""

import json
import subprocess
import sys

import pytest

from tests.helpers.processes import ROOT, environment

EXPECTED = {
    "generator_of_the_file": "exact",
    "cache_of_random_crops": "exact",
    "weights_by_the_loss": "exact",
    "epoch_of_a_batch_sampler": "exact",
    "set_epoch_of_a_stream_workers": "exact",
    "priorities_by_the_loss": "reported",
    "iterator_at_first_use": "reported",
    "workers_generator_at_first_use": "reported",
    "persistent_count_of_samples": "reported",
}


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_stopped_pipelines_are_exact_or_reported(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "pipelines.py"), "--json", "--keep", str(tmp_path)]
    done = subprocess.run(
        [*command, "--only", *EXPECTED], env=environment(), capture_output=True, text=True, timeout=1400
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {row["pipeline"]: row["verdict"] for row in found["rows"]} == EXPECTED, done.stderr
    assert (found["silent"], found["failed"]) == (0, 0)
