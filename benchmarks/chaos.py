"""Kill trainings at random moments, by every method, until they end; compare each with an uninterrupted one.

    python benchmarks/chaos.py --kills 12 --seed 0 --json

Each of N runs is a small training under the real supervisor (``lightning-green run``), in real processes; every fourth
has two ranks (``ddp`` over gloo). After each start the benchmark waits a random time and draws a method. With two
ranks, it also draws one of them:

    sigterm, sigint           to the process of one rank; the supervisor starts the training again
    sigkill                   the process of one rank
    all ranks                 SIGKILL of every rank at once
    supervisor                SIGKILL of the supervisor; the same command line is started again
    everything                SIGKILL of all of them, then the same command line
    exception                 the code of the training raises, on one rank
    kill while writing        SIGKILL when the temporary file of a checkpoint appears
    full disk while writing   a limit on the file size interrupts the writing of a checkpoint (EFBIG)

Figures:

    runs             runs that were started; each was killed one to `--most` times (`runs_of_two_ranks` of them had two)
    kills            kills that hit a running training, by method in `kills_by_method`
    exact            runs that ended with the SHA-256 of weights, optimizer, random states, losses and sample order of
                     the uninterrupted run, on every rank
    lost_steps_max   largest number of optimizer steps lost by one kill (a checkpoint is written every 4 steps of a
                     simulated clock; a stop that can be caught loses none)
    corrupt          checkpoints in the run directories that could not be read, at any start or at the end
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

METHODS = (
    "sigterm", "sigint", "sigkill", "supervisor", "everything", "exception", "kill while writing",
    "full disk while writing",
)  # fmt: skip
RANKS_EVERY = 4  # one run in four has two ranks
STEP_SECONDS = 0.02
BATCHES = 80  # of one epoch of `chaos_training.py`, on all ranks


def child(folder: Path, ranks: int) -> None:
    """Train slowly enough to be killed, and carry out the methods that only the process itself can."""
    import lightning.pytorch as pl
    from chaos_training import train

    class Slow(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            (folder / f"pid{trainer.global_rank}").write_text(str(os.getpid()))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            time.sleep(STEP_SECONDS)
            order = folder / f"order{trainer.global_rank}"
            if not order.exists():
                return
            what = order.read_text()
            order.unlink()
            if what == "exception":
                raise RuntimeError("chaos")
            if what == "full disk while writing":  # the next checkpoint fails in the middle
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
                (folder / "full").touch()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if (folder / "full").exists() and any(
                "checkpoint_failed" in path.read_text() for path in (folder / "run").glob("ledger.*")
            ):
                (folder / "full").unlink()
                raise RuntimeError("the disk is full")

    train(folder, ranks, Slow())


class Killed:
    """One run that is killed repeatedly."""

    def __init__(self, folder: Path, seed: int, most: int, ranks: int = 1) -> None:
        self.folder, self.draw, self.ranks = folder, random.Random(seed), ranks
        self.batches = BATCHES // ranks  # of one epoch, on each rank
        self.left, self.kills, self.lost, self.corrupt = self.draw.randint(1, most), Counter(), 0, 0
        self.stopped, self.exact, self.until = False, False, 0.0
        folder.mkdir()

    def start(self) -> subprocess.Popen:
        """Start the supervisor the way a user does."""
        command = [sys.executable, "-m", "lightning_green", "run", "--run-dir", str(self.folder / "run"), "--"]
        command += [sys.executable, __file__, "--child", str(self.folder), "--ranks", str(self.ranks)]
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "LIGHTNING_GREEN_CLOCK": "simulated:start=2024-05-02T16:00:00+00:00,batch=60,checkpoint=0,restart=0",
        }  # fmt: skip
        with open(self.folder / "output.txt", "ab") as output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)

    def steps(self) -> int:
        """Return the number of recorded training batches."""
        try:
            return (self.folder / "record.jsonl").read_bytes().count(b'"kind": "train"')
        except OSError:
            return 0

    def position(self) -> int:
        """Return the number of the last batch."""
        lines = [json.loads(line) for line in _lines(self.folder / "record.jsonl")]
        at = [line["at"] for line in lines if line["kind"] == "train"]
        return at[-1][0] * self.batches + at[-1][1] + 1 if at else 0

    def pids(self) -> list[int]:
        """Return the process id of each rank; none between two starts."""
        try:
            alive = int(json.loads((self.folder / "run" / "run.heartbeat").read_text())["pid"])
            pids = [int((self.folder / f"pid{rank}").read_text()) for rank in range(self.ranks)]
        except (OSError, ValueError, KeyError):
            return []
        return pids if pids[0] == alive else []

    def stop(self) -> None:
        """End a run that another thread executes; it does not count."""
        self.stopped = True

    def over(self) -> bool:
        """Return whether the run was stopped or its time limit is over."""
        return self.stopped or time.monotonic() > self.until

    def run(self, limit: float = 300.0) -> None:
        """Start, kill, and start again until the training has finished."""
        self.until = time.monotonic() + limit
        supervisor = self.start()
        while supervisor.poll() is None:
            if self.over():
                os.killpg(supervisor.pid, signal.SIGKILL)
                break
            if not self.left:
                time.sleep(0.05)
                continue
            before = self.steps()
            while supervisor.poll() is None and self.steps() == before and not self.over():
                time.sleep(0.01)  # until a batch is trained
            time.sleep(self.draw.random() * STEP_SECONDS * 100)
            pids = self.pids()
            if supervisor.poll() is not None or not pids or self.steps() == before:
                continue
            method = self.draw.choice(METHODS if self.ranks == 1 else (*METHODS, "all ranks"))
            if not self.hit(method, pids, supervisor):
                continue
            self.kills[method] += 1
            self.left -= 1
            at = self.position()
            self.check()
            if method in ("supervisor", "everything"):
                supervisor.wait()
                supervisor = self.start()  # it ends at once if the training has finished
            rows = len(_lines(self.folder / "record.jsonl"))
            while supervisor.poll() is None and not self.over():
                lines = [json.loads(line) for line in _lines(self.folder / "record.jsonl")[rows:]]
                again = [line["at"] for line in lines if line["kind"] == "train"]
                if again:
                    self.lost = max(self.lost, at - (again[0][0] * self.batches + again[0][1]))
                    break
                time.sleep(0.02)
        self.check()

    def hit(self, method: str, pids: list[int], supervisor: subprocess.Popen) -> bool:
        """Apply a method; return whether the training was still running."""
        rank = self.draw.randrange(self.ranks)
        if method in ("exception", "full disk while writing"):
            rank = 0 if method != "exception" else rank  # rank 0 writes the checkpoints
            (self.folder / f"order{rank}").write_text(method)
            return self.gone(pids)
        if method == "supervisor":
            supervisor.kill()
            return True
        if method == "everything":
            supervisor.kill()
        if method == "kill while writing":
            folder, until = self.folder / "run" / "checkpoints", time.monotonic() + 2.0
            while not any(folder.glob(".*.tmp")):
                if time.monotonic() > until or supervisor.poll() is not None:
                    return False
        number = {"sigterm": signal.SIGTERM, "sigint": signal.SIGINT}.get(method, signal.SIGKILL)
        hit = 0
        for pid in pids if method in ("everything", "all ranks") else [pids[rank]]:
            try:
                os.kill(pid, number)
                hit += 1
            except ProcessLookupError:  # noqa: PERF203 - two processes
                pass
        return method == "everything" or (hit > 0 and self.gone(pids))

    def gone(self, pids: list[int]) -> bool:
        """Wait for all processes to end, as the loss of one rank ends the others; return whether they did."""
        until = time.monotonic() + 60.0
        while time.monotonic() < until:
            if not any(map(_alive, pids)):
                return True
            time.sleep(0.01)
        return False

    def check(self) -> None:
        """Try to read every checkpoint with its final name."""
        from lightning_green.resume.checkpoints import load_checkpoint

        for path in (self.folder / "run" / "checkpoints").glob("*.ckpt"):
            try:
                load_checkpoint(path)
            except RuntimeError:  # noqa: PERF203 - two files
                self.corrupt += path.exists()  # an older one may be removed while it is read


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _lines(path: Path) -> list[str]:
    """Return the complete records; a kill truncates one, and the next process appends to the rest of it."""
    try:
        lines = path.read_text().split("\n")[:-1]
    except OSError:
        return []
    return [line[line.rfind('{"kind"') :] for line in lines if line.endswith("}")]


def outcome(folder: Path, ranks: int) -> list[object] | None:
    """Return the digests, losses and sample order of each rank; the last record of each batch counts."""
    found: list[object] = []
    for rank in range(ranks):
        if not (folder / f"digest{rank}.json").exists():
            return None
        records = {}
        for line in map(json.loads, _lines(folder / f"record{rank or ''}.jsonl")):
            if line["kind"] in ("train", "validation"):
                records[line["kind"], tuple(line["at"])] = (line["indices"], line["loss"])
        found.append((json.loads((folder / f"digest{rank}.json").read_text()), records))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=12, metavar="N", help="runs that are killed")
    parser.add_argument("--most", type=int, default=3, help="kills of one run at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--data", help="not needed")
    parser.add_argument("--keep", type=Path, help="keep the directories of the runs here")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ranks", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.ranks)
        return
    with tempfile.TemporaryDirectory() as temporary:
        base = arguments.keep or Path(temporary)
        base.mkdir(parents=True, exist_ok=True)
        ranks_of = [2 if number % RANKS_EVERY == RANKS_EVERY - 1 else 1 for number in range(arguments.kills)]
        references = {}
        for ranks in sorted(set(ranks_of)):
            whole = Killed(base / f"whole{ranks}", 0, 1, ranks)
            whole.left = 0
            whole.run()
            references[ranks] = outcome(whole.folder, ranks)
            if references[ranks] is None:
                sys.exit(f"The uninterrupted run did not finish: see {whole.folder / 'output.txt'} (with --keep DIR)")
        runs = []
        started = [
            Killed(base / f"run{number}", 1000 * arguments.seed + number, arguments.most, ranks)
            for number, ranks in enumerate(ranks_of)
        ]

        def see(number: int, run: Killed) -> None:
            run.run()
            if run.stopped:
                return
            run.exact = outcome(run.folder, run.ranks) == references[run.ranks]
            runs.append(run)
            print(
                f"run {number}, {run.ranks} rank(s): {dict(run.kills)}, {run.lost} steps lost, "
                f"{'exact' if run.exact else 'NOT EXACT'}",
                file=sys.stderr,
            )

        with ThreadPoolExecutor(arguments.jobs) as pool:
            try:
                for seen in [pool.submit(see, number, run) for number, run in enumerate(started)]:
                    seen.result()
            except KeyboardInterrupt:  # report the completed runs
                pool.shutdown(wait=False, cancel_futures=True)
                for run in started:
                    run.stop()
    kills = sum((run.kills for run in runs), Counter())
    figures = {
        "runs": len(runs),
        "runs_of_two_ranks": sum(run.ranks > 1 for run in runs),
        "kills": sum(kills.values()),
        "exact": sum(run.exact for run in runs),
        "lost_steps_max": max((run.lost for run in runs), default=0),
        "corrupt": sum(run.corrupt for run in runs),
        "kills_by_method": dict(sorted(kills.items())),
        "n": len(runs),
    }
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
