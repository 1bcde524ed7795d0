"""The processes of one start of a command, which a signal has to reach."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from lightning_green.ledger.run_directory import ATTEMPT_VARIABLE
from lightning_green.supervisor.survivors import has_variable, running_ranks, send

_PARENT, _SESSION = 1, 3  # fields of /proc/PID/stat after the name


class CommandProcesses:
    """All processes that one start of a command has created on this machine, in whatever process group they are.

    Without ``/proc`` only those of its process group are reached.

    Args:
        leader: The process that the supervisor has started, as the leader of a session.
        attempt: Name of the attempt.
        home: Directory of the runs of the command.

    """

    def __init__(self, leader: int, attempt: str, home: Path) -> None:
        self._leader, self._home = leader, home
        self._variable = f"{ATTEMPT_VARIABLE}={attempt}".encode()

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
        if number in (signal.SIGUSR1, signal.SIGUSR2) and ranks and all(_catches(rank, number) for rank in ranks):
            send(ranks, number)  # Lightning's handler asks SLURM for a requeue
            return
        stopped = [pid for pid in parents if pid in ranks or not _is_below(pid, ranks, parents)]
        self._send(stopped, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def left(self) -> list[int]:
        """Return the processes that are still running, after the command itself has ended."""
        return [pid for pid in _processes() if has_variable(Path("/proc", str(pid)), self._variable)]

    def _send(self, processes: list[int], number: int) -> None:
        if processes:
            send(processes, number)
        else:
            send([-self._leader], number)

    def _parents(self) -> dict[int, int]:
        """Return the processes with their parents. The command itself has not been waited for."""
        found = {}
        for pid in _processes():
            fields = _stat(pid)
            if fields and (int(fields[_SESSION]) == self._leader or has_variable(Path(f"/proc/{pid}"), self._variable)):
                found[pid] = int(fields[_PARENT])
        return found


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


def _catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
        caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)
