"""How much longer a script takes to start because it imports this package.

    python benchmarks/import_time.py --json

Each process imports `lightning.pytorch` first. The two kinds of processes take turns. Figures, in CPU seconds:

    added_s            of `import lightning_green`, with its 95 % interval
    added_callbacks_s  of `from lightning_green import CarbonScheduler, EmissionsTracker`, with its 95 % interval
    lightning_s        of `import lightning.pytorch` itself, for comparison
    n                  processes of each kind
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, time
began = time.process_time()
import lightning.pytorch
middle = time.process_time()
exec(sys.argv[1])
print(middle - began, time.process_time() - middle)
"""
STATEMENTS = {
    "added_s": "import lightning_green",
    "added_callbacks_s": "from lightning_green import CarbonScheduler, EmissionsTracker",
}


def seconds(statement: str) -> tuple[float, float]:
    """Return the CPU seconds of importing Lightning, and of the statement after it."""
    command = [sys.executable, "-c", SCRIPT, statement]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    first, second = map(float, out.split())
    return first, second


def interval(values: list[float]) -> list[float]:
    """Return the 95 % interval of the mean."""
    mean = statistics.fmean(values)
    half = 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return [round(mean - half, 4), round(mean + half, 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last thing")
    parser.add_argument("--n", type=int, default=10)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    lightning: list[float] = []
    for _ in range(arguments.n):
        for name, statement in STATEMENTS.items():
            before, added = seconds(statement)
            lightning.append(before)
            found[name].append(added)
    result: dict[str, object] = {name: round(statistics.fmean(values), 4) for name, values in found.items()}
    result |= {f"{name}_95": interval(values) for name, values in found.items()}
    result |= {"lightning_s": round(statistics.fmean(lightning), 2), "n": arguments.n}
    print(json.dumps(result) if arguments.json else "\n".join(f"{name:<22} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
