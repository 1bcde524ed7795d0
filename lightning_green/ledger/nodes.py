"""The nodes of one training: each has a meter and a ledger, and rank 0 adds them up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_green.ledger.events import Event
from lightning_green.ledger.ledger import LEDGER_FILES, ledger_files, node_name, parse_lines
from lightning_green.utilities.reading import UnreadableFileError, open_regular

_MAX_BYTES = 16 * 2**20
"""Size of what is read of one ledger at once."""


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
        problem: One sentence about a ledger that cannot be read, or None.
        watts: Power of each node over its last interval of at least one second, by the number of the node.

    """

    def __init__(self, folder: Path, attempt: int) -> None:
        self._folder, self._attempt = folder, attempt
        self._read: dict[Path, int] = {path: path.lstat().st_size for path in ledger_files(folder)}
        self._before: dict[int, tuple[float, float]] = {}
        self.problem: str | None = None
        self.watts: dict[int, float] = {}

    def new_events(self) -> list[Event]:
        """Return the events appended since the last call, of each node in order; not thread-safe."""
        found: list[Event] = []
        for path in sorted(self._folder.glob(LEDGER_FILES)):
            try:
                with open_regular(path) as file:  # each time: a network file system looks for new data on opening
                    file.seek(self._read.get(path, 0))
                    data = file.read(_MAX_BYTES)
            except (OSError, UnreadableFileError) as error:  # the next call reads it
                reason = error.strerror if isinstance(error, OSError) else error
                self.problem = f"The ledger {path} of another node cannot be read: {reason}"
                continue
            *lines, rest = data.split(b"\n")
            if not lines and len(data) == _MAX_BYTES:  # a line that is too long
                rest = b""
            self._read[path] = self._read.get(path, 0) + len(data) - len(rest)
            found += [event for event in parse_lines(lines) if event.node_rank and self._is_ours(event)]
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
