"""How long ``lightning-green runs`` takes to list runs that have finished: the first time, and again.

    python benchmarks/run_list.py --runs 200 --hours 1 --json

Each run is a training on one node, which writes an event every 15 s. Figures:

    first_s   CPU seconds of the first list, which reads all ledgers
    again_s   CPU seconds of the second list, which reads no ledger that has not changed
    events    events of all runs
    start_s   seconds of `lightning-green --version`, the shortest of 5 times
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.ledger import write
from lightning_green.ledger import read_history
from lightning_green.ledger.events import Finished
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.run_cache import SummaryCache
from lightning_green.report.run_list import list_runs
from lightning_green.utilities.clock import SystemClock


def write_runs(folder: Path, count: int, hours: float) -> int:
    """Write the directories of finished runs; return the number of their events."""
    first = folder / "run-0"
    RunDirectory(first).save()
    write(first, hours / 24)
    ledger = Ledger(first, SystemClock(), 1)
    ledger.append(Finished())
    ledger.close()
    for number in range(1, count):
        shutil.copytree(first, folder / f"run-{number}")
    return count * read_history(first).count


def seconds(folder: Path, cache: Path) -> float:
    """Return the CPU seconds of one list."""
    began = time.process_time()
    list_runs(folder, SummaryCache(cache))
    return time.process_time() - began


def start_seconds() -> float:
    """Return the seconds that the command takes to start."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "lightning_green", "--version"]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).resolve().parents[1])
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last thing")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--hours", type=float, default=1.0, help="length of each run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name) / "runs", Path(name) / "cache.json"
        events = write_runs(folder, arguments.runs, arguments.hours)
        result = {
            "first_s": seconds(folder, cache),
            "again_s": seconds(folder, cache),
            "events": events,
            "start_s": min(start_seconds() for _ in range(5)),
        }
    if arguments.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:<16}{value}")


if __name__ == "__main__":
    main()
