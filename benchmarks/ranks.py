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
    green_low_rank, green_accumulate          `GreenDDPStrategy` with low-rank gradients, the second with accumulation
    green_average                             `GreenDDPStrategy` with averages of the parameters

Figures:

    cases      cases that were run
    exact      cases that were saved at the stop (or before the loss), continued from that state, and ended with the
               weights, buffers, optimizer states, results and random states of the reference, on every rank
    reported   the same results, but a message before the stop reported that the run is saved between epochs only or is
               only metered
    silent     cases with other results
    failed     the stop did not happen, the training did not continue from its state, or it did not end without an error
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
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from run_records import Outcome, last_line, ledger_events, reported_before_stop
from zygote import Ended, Job, Zygote

SCRIPT = Path(__file__).resolve().with_name("ranks_training.py")
CLOCK = "simulated:start=2024-05-02T16:00:00+00:00,batch=60,checkpoint=0,restart=0"
STRATEGIES = (
    *("ddp", "ddp_unused", "ddp_views", "ddp_static", "ddp_powersgd", "ddp_feedback", "ddp_local_sgd", "ddp_zero"),
    *("ddp_states", "ddp_streams", "ddp_accumulate", "ddp_two_fits", "fsdp", "fsdp2"),
    *("green_low_rank", "green_accumulate", "green_average"),
)
RANKS = (2, 3, 4)
STOPS = ("exit", "SIGTERM", "SIGKILL", "raise")
VERDICTS = ("exact", "reported", "silent", "failed")
STARTS = 2  # the one that is stopped, and the one that continues
LIMIT = 120.0  # seconds of one start


class Case(NamedTuple):
    """A training that is stopped.

    Attributes:
        strategy: Its strategy, for ``ranks_training.py``.
        ranks: Number of ranks.
        stop: Kind, batch and rank of the stop.

    """

    strategy: str
    ranks: int
    stop: str

    @property
    def name(self) -> str:
        """The name of the case."""
        return f"{self.strategy}-{self.ranks}-{self.kind}"

    @property
    def kind(self) -> str:
        """The kind of the stop."""
        return self.stop.partition("@")[0]


def cases(seed: int) -> list[Case]:
    """Return the cases; each strategy and number of ranks has one planned exit and one other stop."""
    draw = random.Random(seed)
    return [
        Case(strategy, ranks, f"{kind}@{draw.randint(4, 18)}:{draw.randrange(ranks)}")
        for number, (strategy, ranks) in enumerate(itertools.product(STRATEGIES, RANKS))
        for kind in ("exit", STOPS[1 + (number + number // 3) % 3])
    ]


def outcome(folder: Path, ranks: int) -> Outcome | None:
    """Return what the ranks ended with; None if one of them has not finished."""
    paths = [folder / f"digest{rank}.json" for rank in range(ranks)]
    return Outcome([json.loads(path.read_text()) for path in paths]) if all(path.exists() for path in paths) else None


def verdict(
    case: Case, starts: list[Ended], stopped: bool, events: list[dict[str, Any]], difference: str | None
) -> tuple[str, str]:
    """Return the verdict of a case, and the reason.

    Args:
        case: The case.
        starts: How its starts ended.
        stopped: Whether the stop was carried out.
        events: Events of its ledger.
        difference: How its outcome differs from the reference; None if a rank has not finished.

    """
    reported = reported_before_stop(events)
    if any(one.hung for one in starts):
        return "failed", "a start did not end within the time limit"
    if difference is None or any(starts[-1].codes):
        return "failed", f"exit codes {[one.codes for one in starts]}"
    if not stopped:
        return "failed", "it was not stopped"
    if difference:
        return "silent", f"{difference} {reported}".strip()
    if reported:
        return "reported", reported
    failure = not_continued(case.kind, events)
    return ("failed", failure) if failure else ("exact", "")


def not_continued(kind: str, events: list[dict[str, Any]]) -> str:
    """Return why a ledger does not show a stop from which the training continued; an empty string if it does."""
    attempts = [[event for event in events if event["attempt"] == number and event["fit"] == 0] for number in (1, 2)]
    ending = {"exit": "paused", "SIGTERM": "interrupted"}.get(kind)  # a lost rank 0 writes none
    if ending and ending not in (event["event"] for event in attempts[0]):
        return f"no event `{ending}`"
    saved = [event for event in attempts[0] if event["event"] == "checkpoint"]
    reason = kind if ending else "periodic"
    if not saved or saved[-1]["reason"] != reason:
        return f"no state was saved ({reason})"
    started = [event["global_step"] for event in attempts[1] if event["event"] == "started"]
    if started != [saved[-1]["global_step"]] or not started[0]:
        return f"saved at step {saved[-1]['global_step']}, continued from step {started}"
    return ""


def jobs(folder: Path, case: Case, stop: str) -> list[Job]:
    """Return the ranks of one start of a training, with the variables of a launcher."""
    given = {"LIGHTNING_GREEN_RUN_DIR": str(folder / "run"), "LIGHTNING_GREEN_RESUME": "1", "STOP": stop}
    given |= {"WORLD_SIZE": str(case.ranks), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    given["MASTER_PORT"] = str(free_port())
    arguments, log = (str(folder), case.strategy, str(case.ranks)), folder / "output.txt"
    return [Job(SCRIPT, folder, log, arguments, {**given, "LOCAL_RANK": str(rank)}) for rank in range(case.ranks)]


def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Judge:
    """Runs cases and counts how they end.

    Args:
        base: Directory of the trainings.
        zygote: Process in whose forks their ranks run.
        keep: Whether to keep the directories of exact cases.

    """

    def __init__(self, base: Path, zygote: Zygote, *, keep: bool) -> None:
        self._base, self._zygote, self._keep = base, zygote, keep
        self._references: dict[tuple[str, int], Outcome | None] = {}
        self.counts = dict.fromkeys(("cases", *VERDICTS, "orphans", "hangs"), 0)
        self.not_exact: dict[str, str] = {}

    def run(self, case: Case) -> tuple[str, str]:
        """Run a case; return its verdict, and the reason."""
        reference = self._base / f"reference-{case.strategy}-{case.ranks}"
        key, folder = (case.strategy, case.ranks), self._base / case.name
        if key not in self._references:
            codes = self._finish(reference, case, "", 1)[-1].codes
            self._references[key] = None if any(codes) else outcome(reference, case.ranks)
        expected = self._references[key]
        if expected is None:
            found, reason = "failed", f"the reference has not finished: {last_line(reference / 'output.txt')}"
        else:
            starts = self._finish(folder, case, case.stop, STARTS)
            ended, stopped = outcome(folder, case.ranks), (folder / "stopped").exists()
            difference = None if ended is None else expected.difference(ended)
            found, reason = verdict(case, starts, stopped, ledger_events(folder / "run"), difference)
        self.counts["cases"] += 1
        self.counts[found] += 1
        if found != "exact":
            self.not_exact[case.name] = f"{found}: {reason}"[:300]
        elif not self._keep:
            shutil.rmtree(folder)
        return found, reason

    def _finish(self, folder: Path, case: Case, stop: str, starts: int) -> list[Ended]:
        """Start a training until it has finished; return how each start ended."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found: list[Ended] = []
        while len(found) < starts and outcome(folder, case.ranks) is None and not (found and found[-1].hung):
            found.append(self._zygote.run(jobs(folder, case, stop), LIMIT))
        self.counts["orphans"] += sum(one.orphans for one in found)
        self.counts["hangs"] += sum(one.hung for one in found)
        return found


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
    zygote = Zygote(preload=("ranks_training",), variables={"LIGHTNING_GREEN_CLOCK": CLOCK})
    judge = Judge(base, zygote, keep=arguments.keep is not None)
    with zygote, suppress(KeyboardInterrupt):  # after which the completed cases are reported
        for number, case in enumerate(chosen, 1):
            began = time.monotonic()
            found, reason = judge.run(case)
            seconds = time.monotonic() - began
            line = f"[{number}/{len(chosen)}] {case.name} {case.stop}: {found}, {seconds:.0f} s. {reason}"
            print(line.rstrip(), file=sys.stderr, flush=True)
    if arguments.keep is None:
        shutil.rmtree(base)
    figures = {**judge.counts, "not_exact": judge.not_exact, "n": judge.counts["cases"]}
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
