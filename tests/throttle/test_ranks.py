"""Changing the level of two real ranks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.ledgers import read_records
from tests.helpers.powercap import limits, packages
from tests.helpers.processes import environment

SCRIPT = Path(__file__).with_name("ranks_training.py")


@pytest.mark.distributed
@pytest.mark.slow
def test_ranks_change_level_at_same_batch(tmp_path):
    folder = packages(tmp_path / "powercap", watts=(200,))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(tmp_path)],
        env=environment(LIGHTNING_GREEN_RUN_DIR=str(tmp_path / "run")),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["pid"] != second["pid"]
    assert first["seen"] == second["seen"]
    changes = [step for step in range(1, 40) if first["seen"][step] != first["seen"][step - 1]]
    assert len(changes) >= 3
    assert set(first["seen"]) == {150, 200}
    assert limits(folder) == [200.0]
    states = {record["state"] for record in read_records(tmp_path / "run") if "state" in record}
    assert states == {"running", "throttled"}
