"""Cost of deciding together, and bytes and accuracy of compressed gradients, with several ranks on this machine.

    python benchmarks/scale.py --data DIR --json

DIR contains `fashion_mnist.npz`. Figures:

    broadcast_step_pct   communication of the ranks that decides at which batch they pause: its time beyond Lightning's
                         broadcast before each batch, which it replaces, as a percentage of a step of 20 ms; the median
                         of blocks of 10 calls that alternate in one run, of the worst of 1, 2 and 4 ranks
    broadcast_gross_pct  the same with the time of Lightning's broadcast
    broadcast            both for each number of ranks, with 95 % intervals
    bytes_ratio          bytes that the sockets of uncompressed trainings sent, divided by those of each kind
    bytes_vs_socket_pct  largest difference between the bytes that the strategy counted and those of the sockets
    accuracy_points      test accuracy of each kind minus that without compression, in points: the mean of the seeds
    accuracy             test accuracies of each kind and seed
    steps, buckets       optimizer steps of one training, and its gradient buckets
    hangs                trainings that did not end within the time limit
    n                    blocks of each number of ranks

The trainings have two ranks and at least 3 gradient buckets. `--only broadcast` or `--only compression` runs one part.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compression_models import data_argument, fashion_mnist, interval
from ranks import free_port
from scale_training import KINDS
from zygote import Job, Zygote

SCRIPT = Path(__file__).resolve().with_name("scale_training.py")
STEP = 0.02
"""Seconds of the step to which the broadcast is compared."""
SYNC_STEPS = 50
"""Steps of 20 ms from one sync to the next."""
RANKS = (1, 2, 4)
LIMIT = 600.0


class Runs:
    """Runs the ranks of ``scale_training.py``, and counts those that hang.

    Args:
        base: Directory of their results.
        zygote: Process in whose forks they run.

    """

    def __init__(self, base: Path, zygote: Zygote) -> None:
        self._base, self._zygote, self.hangs = base, zygote, 0

    def run(self, task: str, ranks: int, *rest: object) -> list[dict[str, Any]]:
        """Return what each rank has written."""
        folder = self._base / "-".join(map(str, (task, ranks, *rest))).replace("/", "_")
        folder.mkdir()
        given = {
            "WORLD_SIZE": str(ranks),
            "NODE_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
        arguments, log = (str(folder), task, str(ranks), *map(str, rest)), folder / "output.txt"
        jobs = [Job(SCRIPT, folder, log, arguments, {**given, "LOCAL_RANK": str(rank)}) for rank in range(ranks)]
        ended = self._zygote.run(jobs, LIMIT)
        self.hangs += ended.hung
        if any(ended.codes):
            raise RuntimeError(log.read_text())
        return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


def broadcast(runs: Runs, blocks: int) -> dict[str, Any]:
    """Return the cost of the broadcast."""
    found: dict[str, Any] = {}
    for ranks in RANKS:
        times = runs.run("broadcast", ranks, blocks)[0]
        rows = list(zip(*(times[name] for name in ("nothing", "lightning", "before_batch", "sync")), strict=True))
        whole = [100 * (ours - none + (sync - none) / SYNC_STEPS) / STEP for none, _, ours, sync in rows]
        net = [one - 100 * (theirs - none) / STEP for one, (none, theirs, *_) in zip(whole, rows, strict=True)]
        found[str(ranks)] = {
            name: round(statistics.median(values), 4)
            for name, values in (("broadcast_step_pct", net), ("broadcast_gross_pct", whole))
        } | {"broadcast_step_pct_95": interval(net), "broadcast_gross_pct_95": interval(whole)}
        print(f"{ranks} ranks: {found[str(ranks)]}", file=sys.stderr, flush=True)
    worst = {name: max(one[name] for one in found.values()) for name in ("broadcast_step_pct", "broadcast_gross_pct")}
    return {**worst, "broadcast": found, "n": blocks}


def compression(runs: Runs, seeds: int, epochs: int, data: Path) -> dict[str, Any]:
    """Return bytes and accuracy of each kind of compression."""
    results: dict[str, list[list[dict[str, Any]]]] = {kind: [] for kind in KINDS}
    for seed in range(seeds):
        for kind, one in results.items():
            one.append(runs.run("train", 2, kind, seed, epochs, data))
            print(f"seed {seed}, {kind}: {one[-1][0]}", file=sys.stderr, flush=True)

    def mean(kind: str, name: str) -> float:
        return statistics.fmean(rank[name] for ranks in results[kind] for rank in ranks)

    points = {kind: [round(ranks[0]["points"], 3) for ranks in one] for kind, one in results.items()}
    others = [kind for kind in KINDS if kind != "none"]
    return {
        "bytes_ratio": {kind: round(mean("none", "socket") / mean(kind, "socket"), 3) for kind in others},
        "bytes_vs_socket_pct": max(round(100 * abs(mean(k, "counted") / mean(k, "socket") - 1), 3) for k in KINDS),
        "bytes_per_step": {kind: round(mean(kind, "socket")) for kind in KINDS},
        "accuracy_points": {
            kind: round(statistics.fmean(a - b for a, b in zip(points[kind], points["none"], strict=True)), 3)
            for kind in others
        },
        "accuracy": points,
        **{name: min(one[0][0][name] for one in results.values()) for name in ("steps", "buckets")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    data_argument(parser)
    parser.add_argument("--only", choices=("broadcast", "compression"), help="run one part")
    parser.add_argument("--blocks", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.only != "broadcast":
        fashion_mnist(arguments.data)  # exits if it is missing
    base, figures = Path(tempfile.mkdtemp(prefix="scale-")), dict[str, Any]()
    with Zygote(preload=("scale_training",), variables={}) as zygote:
        runs = Runs(base, zygote)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "broadcast": lambda: broadcast(runs, arguments.blocks),
            "compression": lambda: compression(runs, arguments.seeds, arguments.epochs, arguments.data.absolute()),
        }
        for name, part in parts.items():
            if arguments.only in (None, name):
                figures |= part()
    figures["hangs"] = runs.hangs
    shutil.rmtree(base)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
