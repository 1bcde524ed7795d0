"""One training of ``chaos.py`` under its supervisor: starting it, killing it, and checking its end."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TRAINING = Path(__file__).with_name("chaos_training.py")
CLOCK = "simulated:start=2024-05-02T16:00:00+00:00,batch=60,checkpoint=0,restart=0"
MARK = "CHAOS_RUN"
LOSSLESS = ("sigterm", "sigint", "stop", "group")
OF_TWO_RANKS = ("all ranks", "hanging rank")
METHODS = (
    *LOSSLESS, "sigkill", "supervisor", "everything", "exception", "kill while writing", "full disk while writing",
    "vanishing directory", "clock step", *OF_TWO_RANKS,
)  # fmt: skip
BATCHES = 80  # of one epoch of `chaos_training.py`, on all ranks
WAIT_SECONDS = 2.0  # the longest time between a batch and the next method
GONE_SECONDS = 90.0  # how long the processes may take to end
ORPHAN_SECONDS = 10.0
TIMEOUT_SECONDS = 15.0  # of the communication of two ranks, where one of them hangs
BACKGROUND = ["sleep", "1000"]
STEPPED_CLOCK = """
import os, time
_time, _file = time.time, {file!r}
def _stepped():
    try:
        with open(_file) as file:
            return _time() + float(file.read() or 0)
    except OSError:
        return _time()
time.time = _stepped
"""


@dataclass(frozen=True)
class Setting:
    """How a training is run.

    Args:
        ranks: Number of ranks.
        workers: Number of workers of the data loader of each rank.
        wrapper: Whether a shell that does not pass on signals starts the training.
        background: Whether that shell starts a program in the background first.
        system_clock: Whether the training saves its state by the system clock, which then can be set.
        timeout: Timeout of the communication of the ranks, in seconds.

    """

    ranks: int = 1
    workers: int = 0
    wrapper: bool = False
    background: bool = False
    system_clock: bool = False
    timeout: float = 1800.0

    def command(self, folder: Path) -> list[str]:
        """Return the command line that the supervisor starts."""
        words = [sys.executable, str(TRAINING), str(folder), "--ranks", str(self.ranks)]
        words += ["--workers", str(self.workers), "--timeout", str(self.timeout)]
        if not (self.wrapper or self.background):
            return words
        before = f"{shlex.join(BACKGROUND)} & " if self.background else ""
        return ["bash", "-c", f"{before}{shlex.join(words)}; exit $?"]


class Job:
    """One training with its supervisor, which is started again until the training has finished.

    Args:
        folder: A new folder.
        setting: How the training is run.
        draw: Source of random numbers.

    Attributes:
        corrupt: Number of checkpoints that could not be read.
        orphans: Command lines of processes that were still running after the end of the supervisor.
        false_codes: Exit codes that the documentation does not promise, with their causes.
        recreated: How often a directory with the name of the renamed one was created.

    """

    def __init__(self, folder: Path, setting: Setting, draw: random.Random) -> None:
        self.folder, self.setting, self.draw = folder, setting, draw
        self.batches = BATCHES // setting.ranks  # of one epoch, on each rank
        self.corrupt, self.recreated, self.starts = 0, 0, 0
        self.orphans: list[str] = []
        self.false_codes: list[str] = []
        self.causes: set[int | str] = set()
        self.supervisor: subprocess.Popen[bytes]
        (folder / "path").mkdir(parents=True)
        if setting.system_clock:
            text = STEPPED_CLOCK.format(file=str(folder / "offset"))
            (folder / "path" / "sitecustomize.py").write_text(text)

    # -- start and end ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the supervisor the way a user does."""
        command = [sys.executable, "-m", "lightning_green", "run", "--run-dir", str(self.folder / "run"), "--"]
        path = os.pathsep.join([str(self.folder / "path"), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", MARK: str(self.folder)}
        environment.pop("LIGHTNING_GREEN_CLOCK", None)
        if not self.setting.system_clock:
            environment["LIGHTNING_GREEN_CLOCK"] = CLOCK
        self.causes, self.starts = set(), self.starts + 1
        with open(self.folder / f"output{self.starts}.txt", "wb") as output:
            self.supervisor = subprocess.Popen(
                command + self.setting.command(self.folder),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        """Whether the supervisor has ended."""
        return self.supervisor.poll() is not None

    @property
    def has_finished(self) -> bool:
        """Whether the script has been executed to its end on every rank."""
        return all((self.folder / f"digest{rank}.json").exists() for rank in range(self.setting.ranks))

    def check_end(self) -> None:
        """Check the exit code of a supervisor that has ended, and that nothing is left behind."""
        code = self.supervisor.returncode
        if not self._is_promised(code):
            self.false_codes.append(f"start {self.starts}: {code} after {self.causes or 'nothing'}")
        if code != -signal.SIGKILL:  # the training continues then
            for pid in self._orphans(stopped=code > 128):
                self.orphans.append(f"start {self.starts}: {_text(pid, 'cmdline')[-150:]}")
                _send(pid, signal.SIGKILL)  # counted once
        self.check_checkpoints()

    def _is_promised(self, code: int) -> bool:
        if code == 0:
            return self.has_finished
        if code == 1 and "vanishing directory" in self.causes:
            last = (self.folder / f"output{self.starts}.txt").read_text().rstrip().rpartition("\n")[2]
            return last.startswith("lightning-green: ") and "directory" in last
        return code in self.causes

    def _orphans(self, stopped: bool) -> list[int]:
        until = time.monotonic() + ORPHAN_SECONDS
        while True:
            left = self.processes()
            expected = [] if stopped else [pid for pid in left if _text(pid, "cmdline").split() == BACKGROUND]
            pipes = {pipe for pid in expected for pipe in _pipes(pid)}
            relays = [pid for pid in left if "relay_process.py" in _text(pid, "cmdline") and pipes & _pipes(pid)]
            left = [pid for pid in left if pid not in (*expected, *relays)]
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.2)

    def check_checkpoints(self) -> None:
        """Try to read every checkpoint with its final name."""
        from lightning_green.resume.checkpoints import load_checkpoint

        for path in (self.folder / "run" / "checkpoints").glob("*.ckpt"):
            try:
                load_checkpoint(path)
            except RuntimeError:  # noqa: PERF203 - two files
                self.corrupt += path.exists()  # an older one may be removed while it is read

    def end(self) -> None:
        """Kill all processes."""
        for _ in range(3):  # also those that were just started
            for pid in self.processes():
                _send(pid, signal.SIGKILL)
        self.supervisor.wait()

    # -- what it does -------------------------------------------------------------------------------------------------

    def trained(self, after: int = 0) -> list[int]:
        """Return the numbers of all recorded training batches, from 0, without the first ``after`` lines."""
        lines = [json.loads(line) for line in read_lines(self.folder / "record.jsonl")[after:]]
        return [line["at"][0] * self.batches + line["at"][1] for line in lines if line["kind"] == "train"]

    def lines(self) -> int:
        """Return the number of recorded lines."""
        return len(read_lines(self.folder / "record.jsonl"))

    def ranks(self) -> list[int]:
        """Return the process id of each rank if the training and its supervisor are running; else an empty list."""
        run = self.folder / "run"
        try:
            alive = int(json.loads((run / "run.heartbeat").read_text())["pid"])
            handled = json.loads((run / "command.json").read_text())["pid"] == self.supervisor.pid
            pids = [int((self.folder / f"pid{rank}").read_text()) for rank in range(self.setting.ranks)]
        except (OSError, ValueError, KeyError):
            return []
        is_running = handled and pids[0] == alive and all(map(is_alive, pids)) and not self.has_ended
        return pids if is_running else []

    def processes(self) -> list[int]:
        """Return all processes that belong to this run, other than zombies."""
        variable = f"{MARK}={self.folder}"
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if variable in _text(pid, "environ", "\n").split("\n") and is_alive(pid)]

    # -- methods ------------------------------------------------------------------------------------------------------

    def hit(self, method: str, pids: list[int]) -> bool:
        """Apply a method; return whether the training was still running.

        Args:
            method: One of ``METHODS``.
            pids: The processes of the ranks.

        """
        rank = self.draw.randrange(self.setting.ranks)
        if method in ("exception", "full disk while writing"):
            return self._order(method, rank if method == "exception" else 0, pids)  # rank 0 writes the checkpoints
        if method in ("stop", "group"):
            return self._stop(method)
        if method == "vanishing directory":
            return self._rename()
        if method == "clock step":
            hours = self.draw.choice((-1, 1)) * self.draw.uniform(1.0, 12.0)
            (self.folder / "offset").write_text(str(3600.0 * hours))
            return True
        if method == "kill while writing" and not self._is_written():
            return False
        if method in ("supervisor", "everything"):
            self.causes.add(-signal.SIGKILL)
            self.supervisor.kill()
            self.supervisor.wait()
        if method == "supervisor":
            return True
        numbers = {"sigterm": signal.SIGTERM, "sigint": signal.SIGINT, "hanging rank": signal.SIGSTOP}
        hit = [
            _send(pid, numbers.get(method, signal.SIGKILL))
            for pid in (pids if method in ("everything", "all ranks") else [pids[rank]])
        ]
        self._wait_until_gone(pids, method)
        return any(hit) or method == "everything"

    def _order(self, method: str, rank: int, pids: list[int]) -> bool:
        order = self.folder / f"order{rank}"
        order.write_text(method)
        self._wait_until_gone(pids, method)
        order.unlink(missing_ok=True)
        return not self.has_finished

    def _stop(self, method: str) -> bool:
        number = signal.SIGTERM if method == "group" else self.draw.choice((signal.SIGTERM, signal.SIGINT))
        self.causes.add(128 + number)
        pids = self.processes() if method == "group" else [self.supervisor.pid]
        self.draw.shuffle(pids)
        for pid in pids:
            _send(pid, number)
        with suppress(subprocess.TimeoutExpired):
            self.supervisor.wait(GONE_SECONDS)
            return True
        self.false_codes.append(f"start {self.starts}: running {GONE_SECONDS:.0f} s after {method}")
        return True

    def _rename(self) -> bool:
        run, away = self.folder / "run", self.folder / "away"
        self.causes.add("vanishing directory")
        run.rename(away)
        time.sleep(self.draw.uniform(1.0, 3.0))
        if run.exists():
            self.recreated += 1
            run.rename(self.folder / f"recreated{self.recreated}")
        away.rename(run)
        return True

    def _is_written(self) -> bool:
        """Wait for the temporary file of a checkpoint; return whether it appeared."""
        folder, until = self.folder / "run" / "checkpoints", time.monotonic() + 2.0
        while not any(folder.glob(".*.tmp")):
            if time.monotonic() > until or self.has_ended:
                return False
        return True

    def _wait_until_gone(self, pids: list[int], method: str) -> None:
        """Wait for all ranks to end, as the loss of one ends the others; kill those that do not."""
        until = time.monotonic() + GONE_SECONDS
        while left := [pid for pid in pids if is_alive(pid)]:
            if time.monotonic() > until:
                self.orphans.append(f"start {self.starts}: a rank, {GONE_SECONDS:.0f} s after {method}")
                for pid in left:
                    _send(pid, signal.SIGKILL)
                return
            time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Return whether a process is running, and not a zombie."""
    return _text(pid, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])


def _text(pid: int, name: str, separator: str = " ") -> str:
    """Return a file of a process in ``/proc``; empty for one that has ended or belongs to another user."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace").replace("\0", separator)
    except OSError:
        return ""


def _pipes(pid: int) -> set[str]:
    try:
        targets = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()
    return {target for target in targets if target.startswith("pipe:")}


def _send(pid: int, number: int) -> bool:
    """Send a signal; return whether the process was still running."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def read_lines(path: Path) -> list[str]:
    """Return the complete records; a kill truncates one, and the next process appends to the rest of it."""
    try:
        lines = path.read_text().split("\n")[:-1]
    except OSError:
        return []
    return [line[line.rfind('{"kind"') :] for line in lines if line.endswith("}")]


def outcome(folder: Path, ranks: int) -> list[Any] | None:
    """Return the digests, losses and sample order of each rank; the last record of each batch counts."""
    found: list[Any] = []
    for rank in range(ranks):
        if not (folder / f"digest{rank}.json").exists():
            return None
        records = {}
        for line in map(json.loads, read_lines(folder / f"record{rank or ''}.jsonl")):
            records[line["kind"], tuple(line["at"])] = (line["indices"], line["loss"])
        found.append((json.loads((folder / f"digest{rank}.json").read_text()), records))
    return found
