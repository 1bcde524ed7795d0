"""How long the history of a run takes to read: once per start in the training, and once per exit in the supervisor.

    python benchmarks/ledger.py --days 7 --json

One training on one node writes an event every 15 s. Figures:

    read_s             CPU seconds to read all events and to add them up, the median of 5 times
    read_s_range       the shortest and the longest of them
    unchanged_s        the same if nothing was appended since
    events, megabytes  size of the ledger
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lightning_green.energy.meter import Energy
from lightning_green.ledger import RunHistory, read_history
from lightning_green.ledger.events import Sample, Started
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.measurement import Intensity, Measurement
from lightning_green.run.session import SAMPLE_SECONDS
from lightning_green.utilities.clock import SimulatedClock


def write(folder: Path, days: float) -> None:
    """Write the ledger of a training."""
    clock = SimulatedClock(datetime(2024, 5, 1, tzinfo=timezone.utc))
    ledger = Ledger(folder, clock, 1)
    for number in range(round(days * 86400 / SAMPLE_SECONDS)):
        clock.sleep(SAMPLE_SECONDS)
        joules = {
            "cpu": Energy(1500.0 * number, "measured"),
            "gpu": Energy(4500.0 * number, "measured"),
            "ram": Energy(75.0 * number, "modelled"),
        }
        intensity = Intensity(381.0, "average/lifecycle", "electricitymaps", "DE", 380.0, "2024-05-01T00:00:00Z")
        event = Sample() if number else Started(startup_s=3.0, meter="auto")
        measured = Measurement(joules, intensity, 1.2, data_wait_s=0.1 * number)
        ledger.append(replace(event, phase="training", state="running", measured=measured, global_step=number, fit=0))
    ledger.close()


def seconds(folder: Path, known: RunHistory | None = None) -> float:
    """Return the CPU seconds of one reading."""
    began = time.process_time()
    read_history(folder, known)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last thing")
    parser.add_argument("--days", type=float, default=7.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, arguments.days)
        times = [seconds(folder) for _ in range(5)]
        history = read_history(folder)
        result = {
            "read_s": statistics.median(times),
            "read_s_range": [min(times), max(times)],
            "unchanged_s": seconds(folder, history),
            "events": history.count,
            "megabytes": history.size / 1e6,
            "n": len(times),
        }
    if arguments.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:<16}{value}")


if __name__ == "__main__":
    main()
