"""The processes of one start of a command, which a signal has to reach."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from lightning_green.ledger.run_directory import ATTEMPT_VARIABLE, RUN_DIR_VARIABLE
from lightning_green.supervisor.survivors import has_variable, running_ranks, send
from lightning_green.utilities.processes import catches

STEP_LAUNCHER = "srun"
_PARENT, _SESSION = 1, 3  # fields of /proc/PID/stat after the name


class CommandProcesses:
    """All processes that a command has created on this machine, in whatever process group they are.

    Without ``/proc`` only those of its process group are reached.

    Args:
        home: Directory of the runs of the command.
        attempt: Name of the attempt; None for all attempts, also those of earlier supervisors.
        leader: The process that the supervisor has started, as the leader of a session, if it has not been waited for.

    """

    def __init__(self, home: Path, attempt: str | None = None, leader: int | None = None) -> None:
        self._home, self._attempt, self._leader = home, attempt, leader

    def are_running(self) -> bool:
        """Return whether there is any."""
        return bool(self._parents())

    def send(self, number: int) -> None:
        """Send a signal to all processes."""
        self._send(list(self._parents()), number)

    def stop(self, number: int) -> None:
        """Ask the training to save its state and to exit.

        The helpers of a training, such as the workers of a ``DataLoader``, are left to it: it needs them until then.

        Args:
            number: The signal that the supervisor received.

        """
        parents = self._parents()
        ranks = set(running_ranks(self._home)) & parents.keys()
        if number in (signal.SIGUSR1, signal.SIGUSR2) and ranks and all(catches(rank, number) for rank in ranks):
            send(ranks, number)  # Lightning's handler asks SLURM for a requeue
            return
        stopped = [pid for pid in parents if pid in ranks or not _is_below(pid, ranks, parents)]
        if ranks:  # by SIGTERM, `srun` would end its step; it ends by itself after the ranks
            stopped = [pid for pid in stopped if pid in ranks or _name(pid) != STEP_LAUNCHER]
        self._send(stopped, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def ask_ranks(self, number: int) -> bool:
        """Send a signal to the ranks of the training; return False without effect as long as one does not catch it."""
        ranks = [pid for pid in running_ranks(self._home) if self._attempt is None or pid in self._parents()]
        ready = bool(ranks) and all(catches(rank, number) for rank in ranks)
        if ready:
            send(ranks, number)
        return ready

    def in_background(self) -> list[int]:
        """Return the processes other than ranks and their helpers, after the command itself has ended."""
        parents = self._parents()
        ranks = set(running_ranks(self._home))
        return [pid for pid in parents if pid not in ranks and not _is_below(pid, ranks, parents)]

    def _send(self, processes: list[int], number: int) -> None:
        if processes:
            send(processes, number)
        elif self._leader is not None:
            send([-self._leader], number)

    def _parents(self) -> dict[int, int]:
        """Return the processes with their parents."""
        found = {}
        for pid in _processes():
            fields = _stat(pid)
            if fields and (int(fields[_SESSION]) == self._leader or self._has_marks(Path(f"/proc/{pid}"))):
                found[pid] = int(fields[_PARENT])
        return found

    def _has_marks(self, process: Path) -> bool:
        if self._attempt is not None:
            return has_variable(process, f"{ATTEMPT_VARIABLE}={self._attempt}")
        return has_variable(process, f"{RUN_DIR_VARIABLE}={self._home}") and has_variable(process, ATTEMPT_VARIABLE)


def describe(processes: list[int]) -> str:
    """Return the names and numbers of processes for messages."""
    return ", ".join(f"{_name(pid)} ({pid})" for pid in processes)


def reap_orphans(known: int) -> None:
    """Remove processes that have ended and whose parents have, if this is the first process of a container.

    Args:
        known: The child process that is waited for elsewhere.

    """
    while os.getpid() == 1:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == known:
            return
        os.waitpid(ended.si_pid, 0)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if int(path.name) != os.getpid()]


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:  # it has ended
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"


def _is_below(pid: int, ranks: set[int], parents: Mapping[int, int]) -> bool:
    """Return whether one of the processes that lead to ``pid`` is a rank."""
    parent = parents.get(pid)
    while parent is not None:
        if parent in ranks:
            return True
        parent = parents.get(parent)
    return False
