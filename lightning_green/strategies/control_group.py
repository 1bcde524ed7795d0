"""The control group of the ranks: rank 0 decides, and all ranks act at the same batch.

The ranks communicate over a gloo group of their own. A process group of Lightning would time out while training is
paused in process, and a NCCL collective keeps the devices busy while it waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from lightning_green.strategies.lost_ranks import LostRanks, RankLostError, is_communication_error, is_timeout
from lightning_green.utilities.clock import Clock
from lightning_green.utilities.processes import ProcessId

LEAST_TIMEOUT = timedelta(seconds=10)
"""Least timeout of the control group. In a hold, rank 0 sends no heartbeat while it makes a new plan."""
HOLD_TIMEOUT = timedelta(seconds=45)
"""Timeout during a hold, in which rank 0 sends a heartbeat every second."""
SYNC_SECONDS = 1.0
"""Time between two syncs, in seconds."""

T = TypeVar("T")
_NUMBERS = 3


@dataclass(frozen=True)
class TrainingGroup:
    """The process group with which Lightning trains.

    Args:
        device: Device of the tensors that its processes exchange.
        timeout: How long a process waits for the others.
        store: Store through which its processes have found each other; None if there is none.

    """

    device: torch.device | str = "cpu"
    timeout: timedelta = timedelta(minutes=30)
    store: Any = None


class Command(IntEnum):
    """A command that rank 0 sends at a boundary, with up to three numbers."""

    CONTINUE = 0
    """Continue training."""
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
    BUDGET = 8
    """A budget is used. Number: the number of the callback among those of the Trainer, which acts on all ranks."""


class ControlGroup:
    """Communication between the ranks of one training; with a single rank, every method returns at once.

    All ranks call each communicating method at the same boundary.

    Args:
        rank: Global rank of this process.
        size: Number of ranks.
        clock: Clock of this process. Every message sets a simulated clock to the time of rank 0.
        training: Process group of the training; None for a gloo group with the default timeout.

    """

    def __init__(
        self, rank: int = 0, size: int = 1, clock: Clock | None = None, training: TrainingGroup | None = None
    ) -> None:
        self.rank, self.size, self._clock = rank, size, clock
        self._training = TrainingGroup() if training is None else training
        self._group: dist.ProcessGroup | None = None
        self._lost = LostRanks(rank, (), None)
        self._in_hold = False
        self._timeout = max(self._training.timeout, LEAST_TIMEOUT)
        if size > 1:
            self._group = dist.new_group(backend="gloo", timeout=self._timeout)
            processes: list[Any] = [None] * size
            dist.all_gather_object(processes, ProcessId.of(os.getpid()), group=self._group)
            self._lost = LostRanks(rank, processes, self._training.store)

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
        self._call(lambda: dist.broadcast_object_list(box, src=0, group=self._group))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the ``value`` of every rank, in rank order, on rank 0; an empty list on the other ranks."""
        if self._group is None:
            return [value]
        found: list[Any] | None = [None] * self.size if self.is_rank_zero else None
        self._call(lambda: dist.gather_object(value, found, dst=0, group=self._group))
        return found or []

    # -- numbers ----------------------------------------------------------------------------------------------------

    def all_reduce_max(self, number: int) -> int:
        """Return the largest ``number`` of all ranks."""
        if self._group is None:
            return number
        tensor = torch.tensor([number])
        self._wait(lambda: dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group, async_op=True))
        return int(tensor.item())

    def all_reduce_max_of_batch(self, *numbers: int) -> list[int]:
        """Return the largest of each of the ``numbers`` of all ranks, before a batch.

        It replaces a broadcast in Lightning's process group, on the same device. A second communication for each batch
        would cost time.
        """
        if self._group is None:
            return list(numbers)
        tensor = torch.tensor(numbers, device=self._training.device)
        self._call(lambda: dist.all_reduce(tensor, dist.ReduceOp.MAX))
        largest: list[int] = self._call(tensor.tolist)
        return largest

    # -- commands ---------------------------------------------------------------------------------------------------

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
        self._wait(lambda: dist.broadcast(tensor, src=0, group=self._group, async_op=True))
        received: list[float] = tensor.tolist()
        self._in_hold = Command(int(received[0])) == Command.HEARTBEAT
        return received

    # -- lost ranks -------------------------------------------------------------------------------------------------

    def describe_lost(self, error: BaseException) -> str:
        """Return which ranks are lost if that is the reason of an error of any communication; else an empty string.

        Stopped processes on this machine are killed: their training cannot continue, and nothing else ends them.
        """
        if self._group is None or not is_communication_error(error):
            return ""
        found = self._lost.describe(timed_out=is_timeout(error))
        self._lost.kill_stopped()
        return found

    def _wait(self, begin: Callable[[], Any]) -> None:
        self._call(lambda: begin().wait(HOLD_TIMEOUT if self._in_hold else self._timeout))

    def _call(self, communicate: Callable[[], T]) -> T:
        try:
            return communicate()
        except RuntimeError as error:
            if not is_communication_error(error):
                raise
            found = self.describe_lost(error) or "The communication of the processes has failed"
            line = (str(error).splitlines() or [""])[0]
            raise RankLostError(f"{found}. The training has stopped: {line}") from error
