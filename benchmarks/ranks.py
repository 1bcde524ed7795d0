"""Stop trainings of two, three and four ranks, and compare each with an uninterrupted one.

    python benchmarks/ranks.py --json

Each case is a strategy or situation of several ranks, a number of ranks and a stop at a random batch:

    exit              a planned exit, which rank 0 decides
    SIGTERM           to one rank
    SIGKILL, raise    one rank is lost, or its script raises; a state is saved every 3 steps of a simulated clock

It is started, stopped, and started again until it has finished. An uninterrupted run of each strategy and number of
ranks is the reference. The strategies:

    ddp, ddp_unused, ddp_views, ddp_static    DDP: plain, `find_unused_parameters`, `gradient_as_bucket_view` with many
                                              small buckets, and `static_graph`
    ddp_powersgd, ddp_feedback                communication hooks: PowerSGD, and rounding with error feedback
    ddp_local_sgd                             local SGD: ranks have weights of their own between two averages
    ddp_zero                                  `ZeroRedundancyOptimizer`
    ddp_states                                states of the module and the DataModule that differ between ranks
    ddp_streams                               streams of different length, which put the ranks into different epochs
    ddp_accumulate                            gradients accumulated over 3 batches
    ddp_two_fits                              two fits, each followed by `trainer.test`
    fsdp, fsdp2                               sharded models

Figures:

    cases      cases that were run
    reported   cases in which a message reports before the stop that the run is not saved there, or the next start ends
               with an error that names the reason
    exact      cases without such a message that ended with the weights, buffers, optimizer states, results and random
               states of the reference, on every rank
    silent     other cases
    orphans    processes that were still running 30 seconds after rank 0 had ended
    hangs      starts that did not end within the time limit

`--only PATTERN` runs the cases whose name contains a regular expression, and `--keep DIR` keeps their directories.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from ranks_launchers import LAUNCHERS, Launcher

STRATEGIES = (
    *("ddp", "ddp_unused", "ddp_views", "ddp_static", "ddp_powersgd", "ddp_feedback", "ddp_local_sgd", "ddp_zero"),
    *("ddp_states", "ddp_streams", "ddp_accumulate", "ddp_two_fits", "fsdp", "fsdp2"),
)
RANKS = (2, 3, 4)
STOPS = ("exit", "SIGTERM", "SIGKILL", "raise")
REPORTED = re.compile(
    "neither paused nor saved|at the end of an epoch only|InexactStateError|OtherTrainingError|Misconfiguration"
)
STARTS = 4  # of one case at most
LIMIT = 120.0


class Case(NamedTuple):
    """A training that is stopped.

    Attributes:
        launcher: Name of what starts its ranks, in ``LAUNCHERS``.
        strategy: Its strategy, for ``ranks_training.py``.
        ranks: Number of ranks.
        stop: Kind, batch and rank of the stop.

    """

    launcher: str
    strategy: str
    ranks: int
    stop: str

    @property
    def name(self) -> str:
        """The name of the case."""
        return f"{self.launcher}-{self.strategy}-{self.ranks}-{self.stop.partition('@')[0]}"


def cases(seed: int) -> list[Case]:
    """Return the cases; each strategy and number of ranks has one planned exit and one other stop."""
    draw = random.Random(seed)
    return [
        Case("forks", strategy, ranks, f"{kind}@{draw.randint(4, 18)}:{draw.randrange(ranks)}")
        for number, (strategy, ranks) in enumerate(itertools.product(STRATEGIES, RANKS))
        for kind in ("exit", STOPS[1 + (number + number // 3) % 3])
    ]


def digests(folder: Path, ranks: int) -> list[Any] | None:
    """Return what each rank ended with; None if one of them has not finished."""
    paths = [folder / f"digest{rank}.json" for rank in range(ranks)]
    return [json.loads(path.read_text()) for path in paths] if all(path.exists() for path in paths) else None


class Judge:
    """Runs cases and counts how they end.

    Args:
        base: Directory of the trainings.
        keep: Whether to keep the directories of exact cases.

    """

    def __init__(self, base: Path, keep: bool) -> None:
        self._base, self._keep = base, keep
        self._launchers: dict[str, Launcher] = {}
        self._references: dict[tuple[str, int], Any] = {}
        self.counts = dict.fromkeys(("cases", "exact", "reported", "silent", "orphans", "hangs"), 0)
        self.not_exact: dict[str, str] = {}

    def run(self, case: Case) -> str:
        """Run a case; return what became of it."""
        key = case.strategy, case.ranks
        if key not in self._references:
            self._references[key] = self._finish(self._base / f"reference-{case.strategy}-{case.ranks}", case, "", 1)
        folder = self._base / case.name
        found = self._finish(folder, case, case.stop, STARTS)
        output = (folder / "output.txt").read_text(errors="replace")
        same = found is not None and found == self._references[key]
        verdict = "reported" if REPORTED.search(output) else "exact" if same else "silent"
        self.counts["cases"] += 1
        self.counts[verdict] += 1
        if verdict != "exact":
            lines = [line for line in output.splitlines() if REPORTED.search(line)]
            self.not_exact[case.name] = lines[-1].strip()[:300] if lines else ""
        elif not self._keep:
            shutil.rmtree(folder)
        return verdict

    def _finish(self, folder: Path, case: Case, stop: str, starts: int) -> list[Any] | None:
        """Start a training until it has finished; return what its ranks ended with."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if case.launcher not in self._launchers:
            self._launchers[case.launcher] = LAUNCHERS[case.launcher]()
        for _ in range(starts):
            ended = self._launchers[case.launcher].start(folder, case.strategy, case.ranks, stop, LIMIT)
            self.counts["orphans"] += ended.orphans
            self.counts["hangs"] += ended.hung
            found = digests(folder, case.ranks)
            if found is not None or ended.hung:
                return found
        return None

    def close(self) -> None:
        """End the launchers."""
        for launcher in self._launchers.values():
            launcher.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="PATTERN", help="run the cases whose name contains it")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the directories of the trainings here")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--data", help="not needed")
    arguments = parser.parse_args()
    base = (arguments.keep or Path(tempfile.mkdtemp(prefix="ranks-"))).absolute()
    chosen = [case for case in cases(arguments.seed) if re.search(arguments.only, case.name)]
    judge = Judge(base, arguments.keep is not None)
    try:
        for number, case in enumerate(chosen, 1):
            began = time.monotonic()
            verdict = judge.run(case)
            seconds = time.monotonic() - began
            print(f"[{number}/{len(chosen)}] {case.name} {case.stop}: {verdict}, {seconds:.0f} s", file=sys.stderr)
    except KeyboardInterrupt:  # report the completed cases
        pass
    finally:
        judge.close()
    if arguments.keep is None:
        shutil.rmtree(base)
    found = {**judge.counts, "not_exact": judge.not_exact, "n": judge.counts["cases"]}
    print(json.dumps(found) if arguments.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
