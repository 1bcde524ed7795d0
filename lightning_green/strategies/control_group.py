"""The control group of the ranks: rank 0 decides, and all ranks act at the same batch.

The ranks communicate over a gloo group of their own. A process group of Lightning would time out while training is
paused in process, and a NCCL collective keeps the devices busy while it waits.
"""

from __future__ import annotations

import time
from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

from lightning_green.utilities.clock import Clock

TIMEOUT = timedelta(days=30)
"""Timeout of a collective. One rank may validate or write a file for any length of time."""
HOLD_TIMEOUT = timedelta(seconds=45)
"""Timeout during a hold, in which rank 0 sends a heartbeat every second."""
SYNC_SECONDS = 1.0
"""Target time between two syncs, in seconds."""

_NUMBERS = 3


class RankLostError(RuntimeError):
    """Another process of this training is gone."""


class Command(IntEnum):
    """A command that rank 0 sends at a boundary, with up to three numbers."""

    CONTINUE = 0
    """Continue training. Number: boundaries until the next sync."""
    SAVE = 1
    """Take part in a checkpoint. Numbers: its number, and 1 for a periodic checkpoint or 0 for one before an exit."""
    EXIT = 2
    """Exit for a planned pause."""
    INTERRUPT = 3
    """Exit because of a signal. Number: the signal."""
    HEARTBEAT = 4
    """The hold continues. Every rank reports whether it received a signal."""
    RESUME = 5
    """The hold is over. Number: its duration in seconds."""
    HOLD = 6
    """A hold begins. Number: power during the hold, as a fraction of full power."""
    SET_LEVEL = 7
    """Set a throttle level. Numbers: index of the level, power and speed as fractions of full power and speed."""


class ControlGroup:
    """Communication between the ranks of one training; with a single rank, every method returns at once.

    All ranks call each communicating method at the same boundary.

    Args:
        rank: Global rank of this process.
        size: Number of ranks.
        clock: Clock of this process. Every message sets a simulated clock to the time of rank 0.

    """

    def __init__(self, rank: int = 0, size: int = 1, clock: Clock | None = None) -> None:
        self.rank, self.size, self._clock = rank, size, clock
        self._group = dist.new_group(backend="gloo", timeout=TIMEOUT) if size > 1 else None
        self._in_hold = False
        self._until_sync, self._interval, self._synced_at = 0, 1, 0.0

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is rank 0, which decides."""
        return self.rank == 0

    # -- objects ----------------------------------------------------------------------------------------------------

    def broadcast(self, value: Any = None) -> Any:
        """Return the ``value`` of rank 0 on every rank."""
        if self._group is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the ``value`` of every rank, in rank order, on rank 0; an empty list on the other ranks."""
        if self._group is None:
            return [value]
        found: list[Any] | None = [None] * self.size if self.is_rank_zero else None
        dist.gather_object(value, found, dst=0, group=self._group)
        return found or []

    # -- syncs at boundaries ----------------------------------------------------------------------------------------

    def sync_due(self) -> bool:
        """Return whether the ranks sync at this boundary; called once at every boundary, on every rank."""
        if self._group is None:
            return True
        self._until_sync -= 1
        return self._until_sync <= 0

    def all_reduce_max(self, number: int) -> int:
        """Return the largest ``number`` of all ranks."""
        if self._group is None:
            return number
        tensor = torch.tensor([number])
        self._wait(dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group, async_op=True))
        return int(tensor.item())

    def send(self, command: Command, *numbers: float) -> None:
        """Send a command and up to three numbers to the other ranks, on rank 0."""
        if self._group is not None:
            time = 0.0 if self._clock is None else self._clock.time()
            self._exchange([float(command), time, *numbers, *[0.0] * (_NUMBERS - len(numbers))])

    def receive(self) -> tuple[Command, list[float]]:
        """Return the command of rank 0 and its three numbers, on the other ranks."""
        command, time, *numbers = self._exchange([0.0] * (2 + _NUMBERS))
        if self._clock is not None:
            self._clock.go_to(time)
        return Command(int(command)), numbers

    def _exchange(self, message: list[float]) -> list[float]:
        tensor = torch.tensor(message, dtype=torch.float64)
        self._wait(dist.broadcast(tensor, src=0, group=self._group, async_op=True))
        received: list[float] = tensor.tolist()
        self._in_hold = Command(int(received[0])) == Command.HEARTBEAT
        return received

    def _wait(self, work: Any) -> None:
        try:
            work.wait(HOLD_TIMEOUT if self._in_hold else TIMEOUT)
        except RuntimeError as error:
            raise RankLostError(
                f"A process of this training is gone, or sent no heartbeat for {HOLD_TIMEOUT.seconds} s during a hold: "
                f"{(str(error).splitlines() or [''])[0]}"
            ) from error

    def schedule_next_sync(self, at_every_boundary: bool) -> None:
        """End a sync on rank 0: choose when the next one is due, about a second later, and send it to the others.

        Args:
            at_every_boundary: Whether to sync at every boundary. Required with a simulated clock, because the real
                time between boundaries is unrelated to the simulated time.

        """
        if self._group is None:
            return
        now = time.monotonic()
        per_boundary = (now - self._synced_at) / self._interval if self._synced_at else SYNC_SECONDS
        wanted = 1 if at_every_boundary else int(SYNC_SECONDS / max(per_boundary, 1e-6))
        self.sync_after(max(1, min(wanted, 2 * self._interval)))
        self._synced_at = now
        self.send(Command.CONTINUE, self._interval)

    def sync_after(self, boundaries: int) -> None:
        """Set the number of boundaries until the next sync."""
        self._interval = self._until_sync = boundaries
