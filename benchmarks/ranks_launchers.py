"""How `ranks.py` starts the ranks of a training.

Started as a program, this file serves as the process in whose forks the ranks run.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("ranks_training.py")
ORPHAN_SECONDS = 30.0
"""Time that processes have to end after rank 0."""
CLOCK = "simulated:start=2024-05-02T16:00:00+00:00,batch=60,checkpoint=0,restart=0"


@dataclass
class Ended:
    """How one start of a training ended.

    Attributes:
        codes: Exit code of each rank.
        hung: Whether it had to be killed, because it did not end within the time limit.
        orphans: Processes that were still running after rank 0 had ended.

    """

    codes: list[int] = field(default_factory=list)
    hung: bool = False
    orphans: int = 0


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a start: without what another run or a launcher left in it."""
    names = ("LIGHTNING_GREEN", "STOP", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC", "RANK")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    kept |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LIGHTNING_GREEN_CLOCK": CLOCK}
    return kept | {"LIGHTNING_GREEN_RESUME": "1"} | more


def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Launcher:
    """Starts each rank as a fork of a process that has imported the libraries, with the variables of a launcher.

    No process watches the ranks: if one of them is lost, the others have to find out and end by themselves.

    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
        )

    def start(self, folder: Path, strategy: str, ranks: int, stop: str, limit: float) -> Ended:
        """Start a training once and wait for its end; its output is appended to ``output.txt`` in its directory.

        Args:
            folder: Directory of the training.
            strategy: Its strategy, for ``ranks_training.py``.
            ranks: Number of ranks.
            stop: The stop to carry out.
            limit: Time limit in seconds.

        """
        given = {"LIGHTNING_GREEN_RUN_DIR": str(folder / "run"), "STOP": stop, "WORLD_SIZE": str(ranks)}
        given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0"}
        job = {"args": [str(folder), strategy, str(ranks)], "env": given, "ranks": ranks, "limit": limit}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Run the jobs that come over standard input, and write how they ended to standard output."""
    import ranks_training  # noqa: F401 - its imports

    for line in sys.stdin:
        job = json.loads(line)
        pids = []
        for rank in range(job["ranks"]):
            child = os.fork()
            if child == 0:
                _run_rank(job, rank)
            pids.append(child)
        print(json.dumps(_wait(pids, time.monotonic() + job["limit"])), flush=True)


def _wait(pids: list[int], until: float) -> dict[str, object]:
    codes: dict[int, int] = {}
    while len(codes) < len(pids) and time.monotonic() < until:
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
                    until = min(until, time.monotonic() + ORPHAN_SECONDS) if pid == pids[0] else until
        time.sleep(0.02)
    left = [pid for pid in pids if pid not in codes]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    orphans = len(left) if pids[0] in codes else 0
    return {"codes": [codes.get(pid, -9) for pid in pids], "hung": bool(left) and not orphans, "orphans": orphans}


def _run_rank(job: dict, rank: int) -> None:
    """Run the training as one rank; never returns."""
    code = 1
    try:
        log = os.open(Path(job["args"][0]) / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(job["env"], LOCAL_RANK=str(rank))
        sys.argv = [str(SCRIPT), *job["args"]]
        os.chdir(job["args"][0])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - the exit code reports it
        import traceback

        traceback.print_exc()
    finally:
        import atexit

        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
