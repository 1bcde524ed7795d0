"""Read what is appended to the ledgers of a run, each event once."""

from __future__ import annotations

from heapq import merge
from pathlib import Path

from lightning_green.ledger.events import Event
from lightning_green.ledger.ledger import LEDGER_FILES, ledger_files, parse_lines
from lightning_green.utilities.reading import UnreadableFileError, open_regular

_MAX_BYTES = 16 * 2**20
"""Size of what is read of one ledger at once."""


class LedgerTail:
    """Reads the ledgers of all nodes of a run while they are written.

    Args:
        folder: Run directory.
        from_end: Whether to leave out what the ledgers contain now.

    Attributes:
        problem: One sentence about a ledger that cannot be read, or None.

    Examples:
        ```python
        tail = LedgerTail(Path("lightning_green/train-1a2b3c4d"))
        for event in tail.new_events():
            print(event.time, event.name)
        ```

    """

    def __init__(self, folder: Path, from_end: bool = False) -> None:
        self._folder = folder
        self._read = {path: path.lstat().st_size for path in ledger_files(folder)} if from_end else {}
        self.problem: str | None = None

    @property
    def size(self) -> int:
        """Size in bytes of what was read."""
        return sum(self._read.values())

    def new_events(self) -> list[Event]:
        """Return the events appended since the last call, in the order in which they were written; not thread-safe."""
        return self._merged([self._of_file(path) for path in self._files()])

    def all_events(self) -> list[Event]:
        """Return the events appended since the last call, however many they are."""
        found = []
        for path in self._files():
            events = more = self._of_file(path)
            while more:
                more = self._of_file(path)
                events = events + more
            found.append(events)
        return self._merged(found)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(LEDGER_FILES))

    @staticmethod
    def _merged(found: list[list[Event]]) -> list[Event]:
        return list(merge(*found, key=lambda event: (event.attempt, event.time_utc)))

    def _of_file(self, path: Path) -> list[Event]:
        before = self._read.get(path, 0)
        try:
            with open_regular(path) as file:  # each time: a network file system looks for new data on opening
                if file.seek(0, 2) < before:  # it was deleted, and a new one was started
                    before = 0
                file.seek(before)
                data = file.read(_MAX_BYTES)
        except (OSError, UnreadableFileError) as error:  # the next call reads it
            reason = error.strerror if isinstance(error, OSError) else error
            self.problem = f"The ledger {path} cannot be read: {reason}"
            return []
        *lines, rest = data.split(b"\n")
        if not lines and len(data) == _MAX_BYTES:  # a line that is too long
            rest = b""
        self._read[path] = before + len(data) - len(rest)
        return list(parse_lines(lines))
