"""The nodes of one training: each has a meter and a ledger, and rank 0 adds them up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_green.ledger.events import Event
from lightning_green.ledger.ledger import node_name
from lightning_green.ledger.tail import LedgerTail


@dataclass(frozen=True)
class Node:
    """Where a process is: the number of its node, from 0, how many nodes there are, and its own number on it."""

    rank: int = 0
    count: int = 1
    process: int = 0

    @property
    def name(self) -> str:
        """Its name in file names: that of the machine, and with several nodes the number as well.

        Containers may have the same host name, and a test starts two nodes on one machine.
        """
        return node_name() if self.count == 1 else f"{node_name()}.{self.rank}"


class OtherNodes:
    """Reads what the other nodes append to their ledgers while rank 0 trains.

    Args:
        folder: Run directory.
        attempt: Start of the run; events of other starts are left out.

    Attributes:
        watts: Power of each node over its last interval of at least one second, by the number of the node.

    """

    def __init__(self, folder: Path, attempt: int) -> None:
        self._tail, self._attempt = LedgerTail(folder, from_end=True), attempt
        self._before: dict[int, tuple[float, float]] = {}
        self.watts: dict[int, float] = {}

    @property
    def problem(self) -> str | None:
        """One sentence about a ledger that cannot be read, or None."""
        return self._tail.problem

    def new_events(self) -> list[Event]:
        """Return the events appended since the last call, of each node in order; not thread-safe."""
        found = [event for event in self._tail.new_events() if event.node_rank and self._is_ours(event)]
        for event in found:
            self._note_power(event)
        return found

    def _is_ours(self, event: Event) -> bool:
        return event.attempt == self._attempt and event.measured is not None

    def _note_power(self, event: Event) -> None:
        assert event.measured is not None
        joules = event.measured.total_joules
        before, joules_before = self._before.setdefault(event.node_rank, (event.mono_s, joules))
        if event.mono_s - before >= 1.0:
            self.watts[event.node_rank] = max(0.0, joules - joules_before) / (event.mono_s - before)
            self._before[event.node_rank] = (event.mono_s, joules)
