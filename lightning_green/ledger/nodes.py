"""The nodes of one training: each has a meter and a ledger of its own, and rank 0 adds them up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_green.ledger.ledger import ledger_files, node_name, parse_lines


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
    """What the other nodes write while rank 0 trains, read from where their ledgers have grown.

    Args:
        folder: The run's folder.
        attempt: Which start of the run this is; lines of others are left out.

    Attributes:
        problem: One sentence about a ledger that could not be read, or None.
        watts: Power of each node over its last interval of a second or more, by its number.

    """

    def __init__(self, folder: Path, attempt: int) -> None:
        self._folder, self._attempt = folder, attempt
        self._read: dict[Path, int] = {path: path.stat().st_size for path in ledger_files(folder)}
        self._before: dict[int, tuple[float, float]] = {}
        self.problem: str | None = None
        self.watts: dict[int, float] = {}

    def news(self) -> list[dict[str, Any]]:
        """Return the complete lines that have come since the last call, of each node in order; one thread at a time."""
        found: list[dict[str, Any]] = []
        for path in ledger_files(self._folder):
            try:
                with open(path, "rb") as file:  # anew: a network file system looks for what is new on opening
                    file.seek(self._read.get(path, 0))
                    data = file.read()
            except OSError as error:  # it is tried again; what is there is not lost
                self.problem = f"The ledger {path} of another node cannot be read: {error.strerror}"
                continue
            *lines, rest = data.split(b"\n")
            self._read[path] = self._read.get(path, 0) + len(data) - len(rest)
            found += [one for one in parse_lines(lines) if one.get("node_rank") and self._is_ours(one)]
        for record in found:
            self._note_power(record)
        return found

    def _is_ours(self, record: dict[str, Any]) -> bool:
        return record.get("attempt") == self._attempt and "joules" in record

    def _note_power(self, record: dict[str, Any]) -> None:
        node, at = int(record["node_rank"]), float(record["mono_s"])
        joules = sum(float(energy["value"]) for energy in record["joules"].values())
        before, joules_before = self._before.setdefault(node, (at, joules))
        if at - before >= 1.0:
            self.watts[node] = max(0.0, joules - joules_before) / (at - before)
            self._before[node] = (at, joules)
