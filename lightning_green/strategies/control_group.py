"""The processes of one training: rank 0 decides, and all act at the same batch.

They talk over a gloo group of their own. A process group of Lightning's would time out while a training is held, and a
collective of NCCL keeps the devices busy while it waits.
"""

from __future__ import annotations

import time
from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

from lightning_green.utilities.clock import Clock

PATIENCE = timedelta(days=30)  # one rank may validate, or write a file, for as long as it likes
HELD_PATIENCE = timedelta(seconds=45)  # while a training is held, rank 0 is heard of every second
LOOK_SECONDS = 1.0


class RankLostError(RuntimeError):
    """Another process of this training is gone."""


class Command(IntEnum):
    """What rank 0 tells the others at a boundary, with up to three numbers."""

    GO = 0
    """Go on; look again after so many boundaries."""
    SAVE = 1
    """Take part in the checkpoint of that number: 1 for a periodic one, 0 for one to leave with."""
    LEAVE = 2
    """Leave for a planned pause."""
    INTERRUPT = 3
    """Leave because of the signal of that number."""
    TICK = 4
    """Still held; say whether a signal has arrived."""
    HELD = 5
    """The hold is over; it took so many seconds."""
    HOLD = 6
    """A hold begins, in which so much of full power is drawn."""
    LEVEL = 7
    """Go to the throttle level of that number, its power and its speed."""


class Ranks:
    """What the processes of one training say to each other; with a single process, nothing.

    Every method that talks is called by all of them at the same place.

    Args:
        rank: Global rank of this process.
        size: Number of processes.
        clock: This process's clock; every message brings it to rank 0's time where that is simulated.

    """

    def __init__(self, rank: int = 0, size: int = 1, clock: Clock | None = None) -> None:
        self.rank, self.size, self._clock = rank, size, clock
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None
        self._held = False
        self._left, self._every, self._looked = 0, 1, 0.0

    @property
    def leads(self) -> bool:
        """Whether this process decides."""
        return self.rank == 0

    # -- anything ---------------------------------------------------------------------------------------------------

    def share(self, value: Any = None) -> Any:
        """Return what rank 0 gives."""
        if self._group is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return on rank 0 what every rank gives, in their order; on the others an empty list."""
        if self._group is None:
            return [value]
        found: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(value, found, dst=0, group=self._group)
        return found or []

    # -- at boundaries ----------------------------------------------------------------------------------------------

    def look_is_due(self) -> bool:
        """Return whether the ranks look up at this boundary; all of them count alike."""
        if self._group is None:
            return True
        self._left -= 1
        return self._left <= 0

    def agree(self, number: int) -> int:
        """Return the largest ``number`` that any rank gives."""
        if self._group is None:
            return number
        tensor = torch.tensor([number])
        self._wait(dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group, async_op=True))
        return int(tensor.item())

    def tell(self, command: Command, *numbers: float) -> None:
        """Tell the others, from rank 0."""
        if self._group is not None:
            time = 0.0 if self._clock is None else self._clock.time()
            self._exchange([float(command), time, *numbers, *[0.0] * (3 - len(numbers))])

    def hear(self) -> tuple[Command, list[float]]:
        """Return what rank 0 tells and its three numbers, on the others."""
        command, time, *numbers = self._exchange([0.0] * 5)
        if self._clock is not None:
            self._clock.go_to(time)
        return Command(int(command)), numbers

    def _exchange(self, message: list[float]) -> list[float]:
        tensor = torch.tensor(message, dtype=torch.float64)
        self._wait(dist.broadcast(tensor, src=0, group=self._group, async_op=True))
        told: list[float] = tensor.tolist()
        self._held = Command(int(told[0])) == Command.TICK
        return told

    def _wait(self, work: Any) -> None:
        try:
            work.wait(HELD_PATIENCE if self._held else PATIENCE)
        except RuntimeError as error:
            raise RankLostError(
                f"A process of this training is gone, or has not been heard of for {HELD_PATIENCE.seconds} s while the "
                f"training was held: {(str(error).splitlines() or [''])[0]}"
            ) from error

    def go_on(self, at_every_boundary: bool) -> None:
        """End a look on rank 0: tell the others after how many boundaries the next one is, about once a second.

        Args:
            at_every_boundary: Whether time is simulated, and then says nothing about how often to look.

        """
        if self._group is None:
            return
        now = time.monotonic()
        per_boundary = (now - self._looked) / self._every if self._looked else LOOK_SECONDS
        wanted = 1 if at_every_boundary else int(LOOK_SECONDS / max(per_boundary, 1e-6))
        self.look_again_after(max(1, min(wanted, 2 * self._every)))
        self._looked = now
        self.tell(Command.GO, self._every)

    def look_again_after(self, boundaries: int) -> None:
        """Set after how many boundaries the next look is."""
        self._every = self._left = boundaries
