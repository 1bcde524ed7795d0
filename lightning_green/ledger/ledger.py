"""The ledger: an append-only log of what was measured, what was decided and why, and what happened."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import merge
from pathlib import Path
from typing import Any, TypeVar

from lightning_green.ledger.event_reader import event_from_json
from lightning_green.ledger.events import Event, HistoryMissing, StateEvent
from lightning_green.utilities.clock import Clock, utc_iso

log = logging.getLogger(__name__)

EventT = TypeVar("EventT", bound=Event)


def node_name() -> str:
    """Return the name of this machine as it is used in file names."""
    return socket.gethostname().split(".")[0] or "node"


class Ledger:
    """Append-only JSON lines of one node, one event per line.

    Each line is one ``write`` to a file opened for appending, so it survives a ``kill -9`` of the process. If the disk
    is full, lines wait in memory and are written with the next line that fits; training continues.

    Args:
        folder: Run directory.
        clock: Clock of the run.
        attempt: Start of the run, from 1.
        node: Name of this node in the file name.

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
        self._warned = False
        self._seq, torn = _last_sequence(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._torn = torn
        if torn:
            self.append(HistoryMissing(reason="the last line was cut off by a kill or a full disk and is dropped"))

    def append(self, event: EventT) -> EventT:
        """Write an event and return it with its header."""
        with self._lock:
            self._seq += 1
            stamped = replace(
                event,
                seq=self._seq,
                time_utc=utc_iso(self._clock.time()),
                mono_s=round(self._clock.monotonic(), 6),
                node=self._node,
                pid=os.getpid(),
                attempt=self.attempt,
            )
            self._waiting.append(json.dumps(stamped.to_json(), allow_nan=False).encode() + b"\n")
            self._write_waiting()
            return stamped

    def renumber(self) -> None:
        """Continue after the events that another process has appended."""
        with self._lock:
            self._seq = max(self._seq, _last_sequence(self.path)[0])

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
                    log.warning("%d lines of the ledger %s are lost: the disk is full.", len(self._waiting), self.path)
                os.close(self._file)
                self._file = -1

    def _write_waiting(self) -> None:
        data = (b"\n" if self._torn else b"") + b"".join(self._waiting)
        try:
            written = os.write(self._file, data)
        except OSError as error:
            self._report(error)
            return
        if written < len(data):  # a disk that filled up in the middle of a line: end the torn one before the next try
            self._torn = True
            self._report(OSError(28, "No space left on device"))
            done = data[:written].rfind(b"\n") + 1
            rest = data[done:]
            self._waiting = [line + b"\n" for line in rest.split(b"\n") if line]
            return
        self._torn = False
        self._waiting.clear()

    def _report(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "The ledger %s cannot be written (%s). Training continues and the lines wait in memory. Free disk "
                "space so that they are not lost.",
                self.path,
                error.strerror,
            )


def _last_sequence(path: Path) -> tuple[int, bool]:
    if not path.exists():
        return 0, False
    data = path.read_bytes()
    torn = bool(data) and not data.endswith(b"\n")
    last = next(_json_lines(reversed(data.split(b"\n"))), {})
    return int(last.get("seq", 0)), torn


def _json_lines(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            continue  # torn by a kill; the next writer has appended a HistoryMissing event
        if isinstance(record, dict):
            yield record


def parse_lines(lines: Iterable[bytes]) -> Iterator[Event]:
    """Return the events in lines of a ledger.

    A line that a kill has torn is dropped. A line that is not an event is dropped with a warning.
    """
    dropped: list[dict[str, Any]] = []
    for record in _json_lines(lines):
        try:
            yield event_from_json(record)
        except ValueError:  # noqa: PERF203 - the next line may be complete
            dropped.append(record)
    if dropped:
        log.warning("%d events of the ledger are skipped, the first of them is %s", len(dropped), dropped[0])


def ledger_files(folder: Path) -> list[Path]:
    """Return the ledgers of all nodes."""
    return sorted(folder.glob("ledger.*.jsonl"))


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
    files = [parse_lines(path.read_bytes().split(b"\n")) for path in ledger_files(folder)]
    return list(merge(*files, key=lambda event: (event.attempt, event.time_utc)))


def last_state_event(events: Sequence[Event]) -> StateEvent | None:
    """Return the last event that changed the state of a fit; None for a run that never started."""
    return next((event for event in reversed(events) if isinstance(event, StateEvent) and not event.node_rank), None)
