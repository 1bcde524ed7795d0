"""The ledger: an append-only log of what was measured, what was decided and why, and what happened."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import socket
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from heapq import merge
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lightning_green.ledger.event_reader import event_from_json
from lightning_green.ledger.events import Event, HistoryMissing, StateEvent
from lightning_green.ledger.merged_samples import SampleMerger
from lightning_green.utilities.clock import Clock, utc_iso
from lightning_green.utilities.reading import MAX_LINE_BYTES, UnreadableFileError, open_regular, parse_json, read_lines

log = logging.getLogger(__name__)

EventT = TypeVar("EventT", bound=Event)

_skipped: set[Path] = set()


def node_name() -> str:
    """Return the name of this machine as it is used in file names."""
    return socket.gethostname().split(".")[0] or "node"


LEDGER_FILES = "ledger.*.jsonl"
"""Pattern of the names of ledgers."""
_MAX_WAITING_BYTES = 4 * 2**20
"""Size in bytes of the lines that wait in memory for room on the disk."""
_LONG_BYTES = 4 * 2**20
"""Size of a ledger whose samples may be merged: more than a day of one every 15 s."""
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


class Ledger:
    """Append-only JSON lines of one node, one event per line.

    Each line is one ``write`` to a file opened for appending, so it survives a ``kill -9`` of the process. If the disk
    is full, lines wait in memory and are written with the next line that fits; training continues. If the file is
    deleted, a new one is created. If its directory is renamed or deleted, one warning is logged and training continues.

    Args:
        folder: Run directory.
        clock: Clock of the run.
        attempt: Start of the run, from 1.
        node: Name of this node in the file name.

    Raises:
        OSError: If the file cannot be opened or created.

    Examples:
        ```python
        ledger = Ledger(Path("run"), SystemClock(), attempt=1)
        ledger.append(Warned(reason="The meter has failed."))
        ```

    """

    def __init__(self, folder: Path, clock: Clock, attempt: int, node: str | None = None) -> None:
        self.path = folder / f"ledger.{node or node_name()}.jsonl"
        self.attempt = attempt
        self._node = node or node_name()
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._problem: str | None = None
        self._lost, self._moved = 0, False
        end = _read_end(self.path)
        self._file, self._seq, self._torn = _open(self.path), end.seq, end.is_torn
        self._folder_inode = folder.stat().st_ino
        if self._torn:
            self.append(HistoryMissing(reason="the last line was cut off by a kill or a full disk and is dropped"))

    def append(self, event: EventT) -> EventT:
        """Write an event and return it with its header."""
        with self._lock:
            stamped = self._stamp(event)
            self._waiting.append(_line(stamped))
            self._write_waiting()
            return stamped

    def renumber(self) -> None:
        """Continue after the events that another process has appended."""
        with self._lock, suppress(OSError):
            self._seq = max(self._seq, _read_end(self.path).seq)

    def sync(self) -> None:
        """Flush the lines to the disk, before a planned exit."""
        with self._lock:
            self._write_waiting()
            try:
                os.fsync(self._file)
            except OSError as error:  # a full disk; the system still holds what was written
                self._report(error)

    def close(self) -> None:
        """Close the file; lines that wait for room on the disk are tried again."""
        with self._lock:
            if self._file >= 0:
                if self._waiting:
                    self._write_waiting()
                if self._waiting:
                    count = self._lost + len(self._waiting)
                    log.warning("%d lines of the ledger %s are lost: the disk is full.", count, self.path)
                os.close(self._file)
                self._file = -1

    def _stamp(self, event: EventT) -> EventT:
        self._seq += 1
        return replace(
            event,
            seq=self._seq,
            time_utc=utc_iso(self._clock.time()),
            mono_s=round(self._clock.monotonic(), 6),
            node=self._node,
            pid=os.getpid(),
            attempt=self.attempt,
        )

    def _write_waiting(self) -> None:
        if self._file < 0:
            return
        try:
            self._find_file()
            data = (b"\n" if self._torn else b"") + b"".join(self._waiting)
            written = os.write(self._file, data)
        except OSError as error:
            self._report(error)
            self._drop_oldest()
            return
        if written < len(data):  # a disk that filled up in the middle of a line: end the torn one before the next try
            self._torn = True
            self._report(OSError(errno.ENOSPC, "No space left on device"))
            done = data[:written].rfind(b"\n") + 1
            rest = data[done:]
            self._waiting = [line + b"\n" for line in rest.split(b"\n") if line]
            return
        self._torn = False
        self._waiting.clear()
        if self._problem is not None:
            log.warning("The ledger %s is written again.", self.path)
            self._problem = None
        if self._lost:
            lost, self._lost = self._lost, 0
            self._waiting.append(
                _line(self._stamp(HistoryMissing(reason=f"{lost} events are lost: the disk was full")))
            )
            self._write_waiting()

    def _find_file(self) -> None:
        """Create a new file if it was deleted. A directory that was renamed keeps its file; a deleted one has none."""
        here = os.fstat(self._file)
        with suppress(OSError):
            there = os.stat(self.path, follow_symlinks=False)
            if there.st_ino == here.st_ino:
                return
        try:
            is_same_folder = self.path.parent.stat().st_ino == self._folder_inode
        except OSError:
            is_same_folder = False
        if is_same_folder:
            end = _read_end(self.path)
            file = _open(self.path)
            os.close(self._file)
            self._file, self._torn, self._seq = file, end.is_torn, max(self._seq, end.seq)
            log.warning("The ledger %s was deleted. It continues in a new file.", self.path)
            missing = HistoryMissing(reason="the ledger was deleted while it was written; its earlier events are lost")
            self._waiting.insert(0, _line(self._stamp(missing)))
        elif here.st_nlink == 0:
            raise OSError(errno.ENOENT, "the run directory was deleted")
        elif not self._moved:
            self._moved = True
            log.warning("The ledger %s was moved with its directory. It is written to its new place.", self.path)

    def _drop_oldest(self) -> None:
        size = sum(map(len, self._waiting))
        while size > _MAX_WAITING_BYTES:
            size -= len(self._waiting.pop(0))
            self._lost += 1

    def _report(self, error: OSError) -> None:
        remedy = " Free disk space so that they are not lost." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        self._warn(f"cannot be written ({error.strerror}). Training continues and the lines wait in memory.{remedy}")

    def _warn(self, problem: str) -> None:
        if self._problem is None:
            log.warning("The ledger %s %s", self.path, problem.rstrip(".") + ".")
        self._problem = problem


def _line(event: Event) -> bytes:
    record = event.to_json()
    try:
        return json.dumps(record, allow_nan=False).encode() + b"\n"
    except ValueError:
        return json.dumps(_without_nan(record)).encode() + b"\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _open(path: Path) -> int:
    """Open a ledger for appending."""
    file = os.open(path, _FLAGS, 0o644)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


class _End(NamedTuple):
    """The end of a ledger: number of its last event, and whether its last line has no line end."""

    seq: int = 0
    is_torn: bool = False


def _read_end(path: Path) -> _End:
    """Return the number of the last event, from the last lines of a ledger."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            tail, length = b"", 2**16
            while True:
                start = max(0, size - length)
                file.seek(start)
                tail = file.read(size - start)
                lines = tail.split(b"\n")[0 if start == 0 else 1 :]  # the first one may be a part of a line
                last = next((record for record in _json_lines(reversed(lines)) if _seq(record) is not None), None)
                if last is not None or start == 0 or length > 2 * MAX_LINE_BYTES:
                    return _End(0 if last is None else _seq(last) or 0, bool(tail) and not tail.endswith(b"\n"))
                length *= 4
    except FileNotFoundError:
        return _End()
    except UnreadableFileError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from error


def _seq(record: dict[str, Any]) -> int | None:
    seq = record.get("seq")
    return seq if isinstance(seq, int) and 0 <= seq < 10**15 else None


def _json_lines(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        record = _json_line(line)
        if record is not None:
            yield record


def _json_line(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line; None for an empty or torn one."""
    if not line.strip():
        return None
    try:
        record = parse_json(line)
    except ValueError:
        return None  # torn by a kill; the next writer has appended a HistoryMissing event
    return record if isinstance(record, dict) else None


def parse_lines(lines: Iterable[bytes]) -> Iterator[Event]:
    """Return the events in lines of a ledger.

    A line that a kill has torn is dropped. A line that is not an event is dropped with a warning.
    """
    return (event for event, _ in _sized_events(lines))


def _sized_events(lines: Iterable[bytes], merge_samples: bool = False) -> Iterator[tuple[Event, int]]:
    """Yield the events in lines of a ledger, and the size of each line."""
    dropped, first = 0, ""
    records = ((record, len(line)) for line in lines if (record := _json_line(line)) is not None)
    for record, length in _merged(records) if merge_samples else records:
        try:
            event = event_from_json(record)
        except ValueError:
            dropped, first = dropped + 1, first or f"{record!r:.200}"
            continue
        yield event, length
    if dropped:
        log.warning("%d events of the ledger are skipped, the first of them is %s", dropped, first)


def _merged(records: Iterable[tuple[dict[str, Any], int]]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the records without those samples that the next one replaces."""
    merger, held = SampleMerger(), None  # type: SampleMerger, tuple[dict[str, Any], int] | None
    for item in records:
        if held is None or not merger.replaces(item[0], held[0]):
            if held is not None:
                yield held
            merger.hold(item[0], None if held is None else held[0])
        held = item
    if held is not None:
        yield held


def ledger_files(folder: Path) -> list[Path]:
    """Return the ledgers of all nodes. Entries of this name that are no files are skipped with a warning."""
    found = []
    for path in sorted(folder.glob(LEDGER_FILES)):
        if stat.S_ISREG(path.lstat().st_mode):
            found.append(path)
        elif path not in _skipped:
            _skipped.add(path)
            log.warning("%s is not a regular file and is skipped.", path)
    return found


def iterate_ledger(folder: Path, merge_samples: bool = False) -> Iterator[tuple[Event, int]]:
    """Yield the events of a run and the size of their lines, in the order of ``read_ledger``; one at a time.

    Args:
        folder: Run directory.
        merge_samples: Whether samples of a long ledger that differ in nothing but their energy are merged.

    Raises:
        OSError: If a ledger cannot be read.

    """
    paths = ledger_files(folder)
    is_long = sum(path.stat().st_size for path in paths) > _LONG_BYTES
    files = [_events_of_file(path, merge_samples and is_long) for path in paths]
    return merge(*files, key=lambda item: (item[0].attempt, item[0].time_utc))


def _events_of_file(path: Path, merge_samples: bool) -> Iterator[tuple[Event, int]]:
    try:
        with open_regular(path) as file:
            yield from _sized_events(read_lines(file), merge_samples)
    except UnreadableFileError as error:  # replaced in the meantime
        log.warning("%s.", error)


def read_ledger(folder: Path) -> list[Event]:
    """Return all events of a run, of all nodes, in the order in which they were written.

    The order does not depend on the time: a clock may be set back.

    Args:
        folder: Run directory.

    Raises:
        OSError: If a ledger cannot be read.

    Examples:
        ```python
        for event in read_ledger(Path("lightning_green/train-1a2b3c4d")):
            print(event.time, event.name, event.reason)
        ```

    """
    return [event for event, _ in iterate_ledger(folder)]


def last_state_event(events: Sequence[Event]) -> StateEvent | None:
    """Return the last event that changed the state of a fit; None for a run that never started."""
    return next((event for event in reversed(events) if isinstance(event, StateEvent) and not event.node_rank), None)
