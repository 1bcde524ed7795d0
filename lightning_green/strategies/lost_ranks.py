"""Which processes of a training are gone, stopped or do not answer, after their communication has failed."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch.distributed as dist

from lightning_green.utilities.processes import ProcessId

ANSWER_SECONDS = 3.0
"""How long to wait for the other ranks, in which the same communication fails at nearly the same time."""
STORE_SECONDS = 3.0
"""How long the store of the process group may take in addition. Its server is one of the processes."""
POLL_SECONDS = 0.1

_COMMUNICATION = re.compile(r"\bgloo\b|\bNCCL\b|Operation timed out!")
_TIMEOUT = re.compile(r"timed out|timeout", re.IGNORECASE)


class RankLostError(RuntimeError):
    """Another process of this training is gone, stopped, or does not answer."""


def is_communication_error(error: BaseException) -> bool:
    """Return whether an exception is a failed communication of processes."""
    return isinstance(error, (RankLostError, dist.DistError)) or (
        isinstance(error, RuntimeError) and bool(_COMMUNICATION.search(str(error)))
    )


def is_timeout(error: BaseException) -> bool:
    """Return whether a communication has failed because a process did not take part in it."""
    return bool(_TIMEOUT.search(str(error)))


class LostRanks:
    """Finds the ranks with which a communication has failed.

    Which processes of this machine have ended or are stopped is known to the system. The others that run are in the
    same failed communication and report so to the store of the process group. Those that do not are lost; a running
    process of this machine only after a timeout, because a failure of this rank alone does not reach it.

    Args:
        rank: Rank of this process.
        processes: Process of each rank.
        store: Store of the process group; None if there is none.

    """

    def __init__(self, rank: int, processes: Sequence[ProcessId], store: Any) -> None:
        self._rank, self._processes, self._store = rank, processes, store
        self._found: dict[int, str] = {}
        self._silent: set[int] | None = None

    def find(self, timed_out: bool = True) -> dict[int, str]:
        """Return what is wrong with each rank that is lost, in the order of the ranks; empty if no rank is.

        Args:
            timed_out: Whether the communication failed because a process did not take part in it.

        """
        if not self._found:
            limit = time.monotonic() + ANSWER_SECONDS
            thread = threading.Thread(target=self._collect, args=(limit,), daemon=True)
            thread.start()
            while thread.is_alive() and not self._look_up() and time.monotonic() < limit + STORE_SECONDS:
                thread.join(POLL_SECONDS)
            if not self._look_up() and self._processes:
                server = {0} - {self._rank} if not self._processes[0].is_local else set[int]()
                silent = server if self._silent is None else self._silent
                lost = [rank for rank in sorted(silent) if timed_out or not self._processes[rank].is_local]
                self._found = {rank: f"{self._processes[rank]} does not answer" for rank in lost}
        return self._found

    def describe(self, timed_out: bool = True) -> str:
        """Return which ranks are lost, in one sentence without a period; empty if none is."""
        return "; ".join(f"Rank {rank} is lost: {what}" for rank, what in self.find(timed_out).items())

    def kill_stopped(self) -> None:
        """Kill the lost ranks of this machine that are stopped: nothing else ends them, and they keep their device."""
        for rank in self._found:
            if self._processes[rank].is_stopped:
                with suppress(OSError):
                    os.kill(self._processes[rank].pid, signal.SIGKILL)

    def _look_up(self) -> bool:
        """Find the processes of this machine that are gone or stopped."""
        for rank, process in enumerate(self._processes):
            if rank == self._rank:
                continue
            if process.is_gone:
                self._found[rank] = f"{process} has ended"
            elif process.is_stopped:
                self._found[rank] = f"{process} is stopped"
        return bool(self._found)

    def _collect(self, limit: float) -> None:
        """Report to the store, and read which ranks have not; in a thread, because the store may not answer."""
        if self._store is None:
            return
        others = {rank for rank in range(len(self._processes)) if rank != self._rank}
        silent = set(others)
        try:
            self._store.set(self._key(self._rank), "1")
            while silent and time.monotonic() < limit:
                silent = {rank for rank in silent if not self._store.check([self._key(rank)])}
                time.sleep(POLL_SECONDS)
        except RuntimeError:  # the process of the server is gone
            return
        self._silent = silent

    def _key(self, rank: int) -> str:
        """Return the key of a rank. Workers that torchrun has restarted may have the store of their predecessors."""
        first = self._processes[0]
        return f"lightning_green/failed/{first.pid}-{first.started}/{rank}"
