"""A process that has imported the libraries, and runs scripts in forks of itself: a start takes no seconds.

Started as a program, `python zygote.py MODULE...`, this file is that process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ORPHAN_SECONDS = 30.0
"""Time that the other processes have to end after the first one."""
POLL_SECONDS = 0.02
OF_OTHERS = (
    *("LIGHTNING_GREEN", "FAULT", "STOP"),
    *("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC"),
)
"""Start of the names of variables that another run or a launcher may have left."""


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a script: without what another run or a launcher left in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHERS)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@dataclass(frozen=True)
class Job:
    """One start of a script.

    Args:
        script: The script.
        cwd: Its working directory.
        log: File to which its output is appended.
        args: Its arguments.
        env: Environment variables, in addition to those of the process.
        output: File for standard output; None for the log.

    """

    script: Path
    cwd: Path
    log: Path
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    output: Path | None = None


@dataclass(frozen=True)
class Ended:
    """How jobs that ran at the same time ended.

    Args:
        codes: Exit code of each job.
        hung: Whether they had to be killed, because they did not end within the time limit.
        orphans: Jobs that were still running a while after the first one had ended.

    """

    codes: list[int]
    hung: bool = False
    orphans: int = 0


class Zygote:
    """The process, as a context manager.

    Args:
        preload: Modules that it imports, if they are installed.
        variables: Environment variables.

    """

    def __init__(self, *, preload: Sequence[str], variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(**variables),
            text=True,
        )

    def __enter__(self) -> Zygote:
        """Return this object."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.communicate()

    def run(self, jobs: Sequence[Job], limit: float) -> Ended:
        """Run jobs at the same time, and wait for their end.

        No process watches them: if one of them is lost, the others have to find out and end by themselves.

        Args:
            jobs: The jobs.
            limit: Seconds after which all are killed.

        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"jobs": [asdict(job) for job in jobs], "limit": limit}, default=str))
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of the forks has ended with code {self._process.wait()}")
        return Ended(**json.loads(answer))


def serve(preload: Sequence[str]) -> None:
    """Run the jobs that come over standard input, and write how they ended to standard output."""
    for name in preload:
        with contextlib.suppress(ImportError), contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all pages
    for line in sys.stdin:
        given, pids = json.loads(line), []
        for job in given["jobs"]:
            pids.append(os.fork())
            if not pids[-1]:
                return _execute(job)
        print(json.dumps(_wait(pids, given["limit"])), flush=True)
    return None


def _execute(job: dict[str, Any]) -> None:
    """Run the script of a job in this process, which ends like that of any script."""
    for path, number in ((job["output"] or job["log"], 1), (job["log"], 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    sys.argv = [job["script"], *job["args"]]
    sys.path[0] = str(Path(job["script"]).parent)
    runpy.run_path(job["script"], run_name="__main__")


def _wait(pids: list[int], limit: float) -> dict[str, Any]:
    """Wait for processes, kill those that remain, and return the fields of `Ended`."""
    codes: dict[int, int] = {}
    until = time.monotonic() + limit
    while len(codes) < len(pids) and time.monotonic() < until:
        for pid in pids:
            done, status = (0, 0) if pid in codes else os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
                until = min(until, time.monotonic() + ORPHAN_SECONDS) if pid == pids[0] else until
        time.sleep(POLL_SECONDS)
    left = [pid for pid in pids if pid not in codes]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    orphans = len(left) if pids[0] in codes else 0
    return {
        "codes": [codes.get(pid, -signal.SIGKILL) for pid in pids],
        "hung": bool(left) and not orphans,
        "orphans": orphans,
    }


if __name__ == "__main__":
    serve(sys.argv[1:])
