"""Kill trainings at random moments, by every method, until they end; compare each with an uninterrupted one.

    python benchmarks/chaos.py --kills 40 --seed 0 --jobs 2 --json

Each run is a small training under the real supervisor (``lightning-green run``), in real processes; some have two ranks
(``ddp`` over gloo), workers of data loaders, a shell as a wrapper that passes no signal on, and a program in the
background. After each start the benchmark waits a random time and applies the next of its methods, each of which
occurs equally often:

    sigterm, sigint           to the process of one rank; the supervisor starts the training again
    stop                      SIGTERM or SIGINT to the supervisor alone; the same command line is started again
    group                     SIGTERM to every process of the job, as SLURM sends it; the same
    sigkill                   the process of one rank
    all ranks                 SIGKILL of both ranks at once
    hanging rank              SIGSTOP of one of two ranks; the timeout of their communication ends the training
    supervisor                SIGKILL of the supervisor; the same command line is started again
    everything                SIGKILL of the supervisor and of all ranks; the same
    exception                 the code of the training raises, on one rank
    kill while writing        SIGKILL when the temporary file of a checkpoint appears
    full disk while writing   a limit on the file size interrupts the writing of a checkpoint (EFBIG)
    vanishing directory       the run directory is renamed, and gets its name back after one to three seconds
    clock step                `time.time` jumps by one to twelve hours, in all processes; other kills follow

Figures:

    kills                    methods that were applied to a running training, by method in `kills_by_method`
    runs                     runs that were started; each was killed one to `--most` times (`runs_with` what)
    exact                    runs that ended with the SHA-256 of weights, optimizer, random states, losses and sample
                             order of the uninterrupted run, on every rank
    lost_steps_max           largest number of optimizer steps lost by one kill that cannot be caught (a checkpoint is
                             written every 4 steps of a simulated clock, or every 0.4 s in a run with clock steps)
    lost_steps_of_stops      the same for sigterm, sigint, stop and group
    corrupt                  checkpoints in the run directories that could not be read, at any start or at the end
    orphans                  processes of a run that were running 10 s after the end of its supervisor, other than the
                             program in the background (which has to end with a stop)
    false_exit_codes         ends of a supervisor with another exit code than `docs/waiting.md` promises
    recreated_directories    directories that were created with the name of the renamed one
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chaos_methods import (  # noqa: E402
    LOSSLESS,
    METHODS,
    OF_TWO_RANKS,
    TIMEOUT_SECONDS,
    WAIT_SECONDS,
    Job,
    Setting,
    outcome,
)

ROUNDS = 4  # how often methods that did not hit are dealt again
SECONDS_PER_START = 120.0
UNEXPLAINED_ENDS = 2


@dataclass
class Run:
    """One training that is killed repeatedly.

    Args:
        job: The training.
        methods: How it is killed.

    """

    job: Job
    methods: list[str]
    kills: Counter[str] = field(default_factory=Counter)
    lost: dict[str, int] = field(default_factory=dict)
    exact: bool = False
    stopped: bool = False
    failures: int = 0
    until: float = 0.0

    @property
    def over(self) -> bool:
        """Whether the run was stopped or its time limit is over."""
        return self.stopped or time.monotonic() > self.until or self.failures > UNEXPLAINED_ENDS

    def run(self) -> None:
        """Start, kill, and start again until the training has finished."""
        self.until = time.monotonic() + SECONDS_PER_START * (2 + len(self.methods))
        self.job.start()
        while self.is_running():
            if not self.methods:
                time.sleep(0.05)
            elif self.wait_for_batch(self.job.lines()) is not None:
                time.sleep(self.job.draw.random() * WAIT_SECONDS)
                self.hit_next()
        self.job.end()

    def is_running(self) -> bool:
        """Return whether the training has to continue; start the same command again if its supervisor has ended."""
        if self.over:
            return False
        if not self.job.has_ended:
            return True
        self.job.check_end()
        if self.job.supervisor.returncode == 0:
            return False
        self.failures += not self.job.causes
        self.job.start()
        return True

    def wait_for_batch(self, lines: int) -> int | None:
        """Return the first batch after a number of recorded lines; None if there is none before the end."""
        while not (trained := self.job.trained(lines)):
            if not self.is_running():
                return None
            time.sleep(0.02)
        return trained[0]

    def hit_next(self) -> None:
        """Apply the next method and count the lost steps; one that misses is tried again after the others."""
        method, pids = self.methods.pop(0), self.job.ranks()
        if not pids or not self.job.hit(method, pids):
            self.methods.append(method)
            return
        self.kills[method] += 1
        trained, lines = self.job.trained(), self.job.lines()
        self.job.check_checkpoints()
        again = self.wait_for_batch(lines)
        lost = 0 if again is None else trained[-1] + 1 - again
        self.lost[method] = max(self.lost.get(method, 0), lost)

    def describe(self, number: int) -> str:
        """Return what has happened."""
        job = self.job
        faults = [*job.false_codes, *job.orphans] + ([f"{job.corrupt} corrupt"] if job.corrupt else [])
        setting = {name: value for name, value in vars(job.setting).items() if value != getattr(Setting, name)}
        verdict = "exact" if self.exact else "NOT EXACT"
        return f"run {number}: {setting} {dict(self.kills)}, lost {self.lost}, {verdict} {faults or ''}"


class Deck:
    """The methods to apply, in random order, each equally often.

    Args:
        kills: Number of methods.
        most: Number of methods of one run at most.
        draw: Source of random numbers.

    """

    def __init__(self, kills: int, most: int, draw: random.Random) -> None:
        self.most, self.draw, self.dealt = most, draw, 0
        self.methods = [name for _ in range(kills // len(METHODS) + 1) for name in draw.sample(METHODS, len(METHODS))]
        del self.methods[kills:]
        self.lock = threading.Lock()

    def deal(self) -> tuple[int, list[str], Setting] | None:
        """Return the number, the methods and the setting of the next run; None if there is none."""
        with self.lock:
            if not self.methods:
                return None
            number, self.dealt = self.dealt, self.dealt + 1
            count = self.draw.randint(1, self.most)
            methods, self.methods = self.methods[:count], self.methods[count:]
            steps_clock = "clock step" in methods
            if steps_clock:  # another kill follows
                methods = [name for name in methods if name != "clock step"]
                methods = ["clock step", *(methods or self.methods[:1] or ["sigkill"])]
                self.methods = self.methods[count == 1 :]
            return number, methods, self._setting(number, methods)

    def _setting(self, number: int, methods: list[str]) -> Setting:
        return Setting(
            ranks=2 if any(name in OF_TWO_RANKS for name in methods) or number % 5 == 4 else 1,
            workers=2 if number % 4 == 2 else 0,
            wrapper=number % 3 > 0,
            background=number % 3 == 2,
            system_clock="clock step" in methods,
            timeout=TIMEOUT_SECONDS if "hanging rank" in methods else Setting.timeout,
        )

    def put_back(self, methods: list[str]) -> None:
        """Return methods that did not hit."""
        with self.lock:
            self.methods += methods


class Chaos:
    """All runs, and the uninterrupted ones.

    Args:
        base: Folder of the runs.
        deck: The methods.
        seed: Seed of the random moments.

    """

    def __init__(self, base: Path, deck: Deck, seed: int) -> None:
        self.base, self.deck, self.seed = base, deck, seed
        self.runs: list[Run] = []
        self.started: list[Run] = []
        self.references: dict[tuple[int, int], object] = {}
        self.locks = {(ranks, workers): threading.Lock() for ranks in (1, 2) for workers in (0, 2)}

    def reference(self, ranks: int, workers: int) -> object:
        """Return the outcome of the uninterrupted run."""
        key = (ranks, workers)
        with self.locks[key]:
            if key not in self.references:
                setting = Setting(ranks=ranks, workers=workers)
                whole = Run(Job(self.base / f"whole{ranks}-{workers}", setting, random.Random(0)), [])
                self.started.append(whole)
                whole.run()
                self.references[key] = outcome(whole.job.folder, ranks)
                if self.references[key] is None and not whole.stopped:
                    raise RuntimeError(
                        f"The uninterrupted run did not finish: see {whole.job.folder} (with --keep DIR)"
                    )
            return self.references[key]

    def work(self) -> None:
        """Execute runs until all methods have been dealt."""
        while (dealt := self.deck.deal()) is not None:
            number, methods, setting = dealt
            expected = self.reference(setting.ranks, setting.workers)
            draw = random.Random(1000 * self.seed + number)
            run = Run(Job(self.base / f"run{number}", setting, draw), methods)
            self.started.append(run)
            run.run()
            if run.stopped:
                return
            run.exact = outcome(run.job.folder, setting.ranks) == expected
            self.runs.append(run)
            self.deck.put_back(run.methods)
            print(run.describe(number), file=sys.stderr, flush=True)

    def stop(self) -> None:
        """End the runs of other threads; they do not count."""
        self.deck.methods.clear()
        for run in self.started:
            run.stopped = True

    def figures(self) -> dict[str, object]:
        """Return the figures of all runs."""
        runs, kills = self.runs, sum((run.kills for run in self.runs), Counter[str]())
        lost = [item for run in runs for item in run.lost.items()]
        settings = [run.job.setting for run in runs]
        return {
            "kills": sum(kills.values()),
            "runs": len(runs),
            "runs_with": {
                "two_ranks": sum(setting.ranks > 1 for setting in settings),
                "workers": sum(setting.workers > 0 for setting in settings),
                "wrapper": sum(setting.wrapper for setting in settings),
                "background": sum(setting.background for setting in settings),
                "clock_steps": sum(setting.system_clock for setting in settings),
            },
            "exact": sum(run.exact for run in runs),
            "lost_steps_max": max((steps for method, steps in lost if method not in LOSSLESS), default=0),
            "lost_steps_of_stops": max((steps for method, steps in lost if method in LOSSLESS), default=0),
            "corrupt": sum(run.job.corrupt for run in runs),
            "orphans": sum(len(run.job.orphans) for run in runs),
            "false_exit_codes": sum(len(run.job.false_codes) for run in runs),
            "recreated_directories": sum(run.job.recreated for run in runs),
            "kills_by_method": dict(sorted(kills.items())),
            "n": len(runs),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=len(METHODS), metavar="N", help="number of kills, in several runs")
    parser.add_argument("--most", type=int, default=3, help="kills of one run at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--data", help="not needed")
    parser.add_argument("--keep", type=Path, help="keep the directories of the runs here")
    arguments = parser.parse_args()
    import lightning_green.resume.checkpoints  # noqa: F401 - takes seconds

    with tempfile.TemporaryDirectory() as temporary:
        base = (arguments.keep or Path(temporary)).absolute()
        deck = Deck(arguments.kills, arguments.most, random.Random(arguments.seed))
        chaos = Chaos(base, deck, arguments.seed)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            try:
                for _ in range(ROUNDS):
                    for done in [pool.submit(chaos.work) for _ in range(arguments.jobs)]:
                        done.result()
            except BaseException as error:
                chaos.stop()
                if not isinstance(error, KeyboardInterrupt):  # report the completed runs
                    raise
    figures = chaos.figures()
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
