"""Kill trainings at random moments, by every method, until they end; compare each with one that nobody touched.

    python benchmarks/chaos.py --kills 12 --seed 0 --json

Each of N runs is a small training under the real supervisor (``lightning-green run``), in real processes. A killer
waits a random time after each start and then picks a method:

    sigterm, sigint           to the training process; the supervisor starts it again
    sigkill                   the training process
    supervisor                SIGKILL of the supervisor; the same command line is started again
    everything                SIGKILL of both, then the same command line
    exception                 the training's own code raises
    kill while writing        SIGKILL at the moment at which the temporary file of a checkpoint appears
    full disk while writing   a limit on the size of files strikes in the middle of a checkpoint (EFBIG)

Figures:

    runs             runs that were started; each was killed one to `--most` times
    kills            kills that hit, by method in `kills_by_method`
    exact            runs that ended with the SHA-256 of weights, optimizer, random states, losses and sample order of
                     the run that nobody touched
    lost_steps_max   the most optimizer steps that one kill cost (a checkpoint is written every 4 steps of a simulated
                     clock; a stop that can be caught costs none)
    corrupt          checkpoints in the run folders that could not be read, at any start or at the end
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

METHODS = (
    "sigterm", "sigint", "sigkill", "supervisor", "everything", "exception", "kill while writing",
    "full disk while writing",
)  # fmt: skip
CASE = {"samples": 320, "epochs": 2, "save_every": "4m"}
STEP_SECONDS = 0.02


def child(folder: Path) -> None:
    """Train, slowly enough to be hit, and do to ourselves what only the process itself can do."""
    import lightning.pytorch as pl

    from tests.resume import kit

    class Slow(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            time.sleep(STEP_SECONDS)
            order = folder / "order"
            if not order.exists():
                return
            what = order.read_text()
            order.unlink()
            if what == "exception":
                raise RuntimeError("chaos")
            if what == "full disk while writing":  # the next checkpoint stops in the middle
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
                (folder / "full").touch()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if (folder / "full").exists() and any(
                "checkpoint_failed" in path.read_text() for path in (folder / "run").glob("ledger.*")
            ):
                (folder / "full").unlink()
                raise RuntimeError("the disk is full")

    kit.Stop = lambda where: Slow()
    kit.train(folder, kit.Case(**CASE))


class Killed:
    """One run that is killed again and again."""

    def __init__(self, folder: Path, seed: int, most: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)
        self.left, self.kills, self.lost, self.corrupt = self.draw.randint(1, most), Counter(), 0, 0
        folder.mkdir()

    def start(self) -> subprocess.Popen:
        """Start the supervisor, as a user would."""
        command = [sys.executable, "-m", "lightning_green", "run", "--run-dir", str(self.folder / "run"), "--"]
        command += [sys.executable, __file__, "--child", str(self.folder)]
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "LIGHTNING_GREEN_CLOCK": "simulated:start=2024-05-02T16:00:00+00:00,batch=60,checkpoint=0,restart=0",
        }  # fmt: skip
        with open(self.folder / "told.txt", "ab") as told:
            return subprocess.Popen(command, env=environment, stdout=told, stderr=told, start_new_session=True)

    def steps(self) -> int:
        """Return how many lines the training has written."""
        try:
            return (self.folder / "record.jsonl").read_bytes().count(b'"kind": "train"')
        except OSError:
            return 0

    def position(self) -> int:
        """Return the batch that the training was at last."""
        lines = [json.loads(line) for line in _lines(self.folder / "record.jsonl")]
        at = [line["at"] for line in lines if line["kind"] == "train"]
        return at[-1][0] * (CASE["samples"] // 4) + at[-1][1] + 1 if at else 0

    def pid(self) -> int | None:
        """Return the process that trains, or None between two."""
        try:
            return int(json.loads((self.folder / "run" / "run.heartbeat").read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return None

    def run(self, limit: float = 300.0) -> None:
        """Start, kill, and start again until the training is done."""
        began, supervisor = time.monotonic(), self.start()
        while supervisor.poll() is None:
            if time.monotonic() - began > limit:
                os.killpg(supervisor.pid, signal.SIGKILL)
                break
            if not self.left:
                time.sleep(0.05)
                continue
            before = self.steps()
            while supervisor.poll() is None and self.steps() == before and time.monotonic() - began < limit:
                time.sleep(0.01)  # until the training trains
            time.sleep(self.draw.random() * STEP_SECONDS * 100)
            pid = self.pid()
            if supervisor.poll() is not None or pid is None or self.steps() == before:
                continue
            method = self.draw.choice(METHODS)
            if not self.hit(method, pid, supervisor):
                continue
            self.kills[method] += 1
            self.left -= 1
            at = self.position()
            self.check()
            if method in ("supervisor", "everything"):
                supervisor.wait()
                supervisor = self.start()
            rows = len(_lines(self.folder / "record.jsonl"))
            while supervisor.poll() is None and time.monotonic() - began < limit:
                lines = [json.loads(line) for line in _lines(self.folder / "record.jsonl")[rows:]]
                again = [line["at"] for line in lines if line["kind"] == "train"]
                if again:
                    self.lost = max(self.lost, at - (again[0][0] * (CASE["samples"] // 4) + again[0][1]))
                    break
                time.sleep(0.02)
        self.check()

    def hit(self, method: str, pid: int, supervisor: subprocess.Popen) -> bool:
        """Do it; return whether the training was still there."""
        try:
            if method in ("exception", "full disk while writing"):
                (self.folder / "order").write_text(method)
                return self.gone(pid)
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
            os.kill(pid, number)
            return self.gone(pid)
        except ProcessLookupError:
            return method == "everything"

    def gone(self, pid: int) -> bool:
        """Wait for a process to end; return whether it did."""
        until = time.monotonic() + 20.0
        while time.monotonic() < until:
            try:
                os.kill(pid, 0)
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    return True
            except OSError:
                return True
            time.sleep(0.01)
        return False

    def check(self) -> None:
        """Try to read every checkpoint that carries its final name."""
        from lightning_green.runtime.checkpoints import load_checkpoint

        for path in (self.folder / "run" / "checkpoints").glob("*.ckpt"):
            try:
                load_checkpoint(path)
            except RuntimeError:  # noqa: PERF203 - two files
                self.corrupt += path.exists()  # an older one may be removed while it is read


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().split("\n")[:-1] if line.endswith("}")]
    except OSError:
        return []


def outcome(folder: Path) -> dict[str, object] | None:
    """Return the digests, the losses and the order of the samples; the last record of each batch counts."""
    if not (folder / "digest0.json").exists():
        return None
    records = {}
    for line in map(json.loads, _lines(folder / "record.jsonl")):
        if line["kind"] in ("train", "validation"):
            records[line["kind"], tuple(line["at"])] = (line["indices"], line["loss"])
    return {"digests": json.loads((folder / "digest0.json").read_text()), "records": records}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=12, metavar="N", help="runs that are killed")
    parser.add_argument("--most", type=int, default=3, help="kills of one run at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--data", help="not needed")
    parser.add_argument("--keep", type=Path, help="keep the folders of the runs here")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    with tempfile.TemporaryDirectory() as temporary:
        base = arguments.keep or Path(temporary)
        base.mkdir(parents=True, exist_ok=True)
        whole = Killed(base / "whole", 0, 1)
        whole.left = 0
        whole.run()
        reference = outcome(whole.folder)
        if reference is None:
            sys.exit(f"The run that nobody touches did not end: see {whole.folder / 'told.txt'} (with --keep DIR)")
        runs, exact = [], 0
        for number in range(arguments.kills):
            run = Killed(base / f"run{number}", 1000 * arguments.seed + number, arguments.most)
            run.run()
            same = outcome(run.folder) == reference
            exact += same
            runs.append(run)
            print(
                f"run {number}: {dict(run.kills)}, {run.lost} steps lost, {'exact' if same else 'NOT EXACT'}",
                file=sys.stderr,
            )
    kills = sum((run.kills for run in runs), Counter())
    figures = {
        "runs": len(runs),
        "kills": sum(kills.values()),
        "exact": exact,
        "lost_steps_max": max((run.lost for run in runs), default=0),
        "corrupt": sum(run.corrupt for run in runs),
        "kills_by_method": dict(sorted(kills.items())),
        "n": len(runs),
    }
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
