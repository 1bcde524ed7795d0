"""The throttling example."""

import os
import re
import subprocess
import sys

import pytest

from tests.examples.helpers import EXAMPLES
from tests.helpers.ledgers import read_records

CLOCK = "simulated:start=2024-05-02T16:00:00+00:00,batch=900,checkpoint=0,restart=0"


def start(folder, *arguments, clock=None):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIGHTNING_GREEN_")}
    environment |= {"OMP_NUM_THREADS": "1", "LIGHTNING_GREEN_CACHE_DIR": str(folder / "cache")}
    if clock is not None:
        environment["LIGHTNING_GREEN_CLOCK"] = clock
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "throttle.py"), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (ledger,) = folder.rglob("ledger.*.jsonl")
    return done.stdout + done.stderr, read_records(ledger.parent)


def emissions(output):
    """Return the actual and the run-now emissions that the example printed, in gCO2e."""
    found = re.search(r"emitted: (\S+) gCO2e, run now: (\S+) gCO2e", output)
    return float(found[1]), float(found[2])


@pytest.mark.nightly
@pytest.mark.slow
def test_measured_levels(tmp_path):
    output, records = start(tmp_path, "--epochs", "2")
    assert "throttling: automatic, at most 1.15 times slower" in output
    assert re.search(r"accuracy: 0\.[5-9]", output)
    assert records[-1]["event"] == "ended"
    assert any(record["event"] == "finished" for record in records)


@pytest.mark.slow
def test_stated_level(tmp_path):
    output, records = start(tmp_path, "--levels", "0.78:0.90", "--watts", "300", clock=CLOCK)
    actual, run_now = emissions(output)
    assert actual < run_now
    assert {record["level"] for record in records if record["event"] == "decision"} == {"0.78:0.9"}


@pytest.mark.slow
def test_level_follows_intensity_with_delay_price(tmp_path):
    # 130 gCO2e per hour is 433 per kW, so the level pays if 0.1333 c > 0.1111 * 433: above 361 gCO2e/kWh. The typical
    # day is below that around noon.
    _, records = start(tmp_path, "--levels", "0.78:0.90", "--watts", "300", "--price", "130", clock=CLOCK)
    states = {record["state"] for record in records if "state" in record}
    assert states == {"running", "throttled"}
    changes = [record for record in records if record["event"] == "state"]
    assert len(changes) >= 4
