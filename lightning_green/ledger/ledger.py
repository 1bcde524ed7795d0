"""The ledger: what was measured, what was decided and why, what happened."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from heapq import merge
from pathlib import Path
from typing import Any

from lightning_green.utilities.clock import Clock, utc_iso

log = logging.getLogger(__name__)

LEDGER_VERSION = 2
"""From 2 on each fit has a meter of its own, whose joules begin at 0."""
STATE_EVENTS = ("started", "finished", "paused", "interrupted", "failed")
ENDED_EVENT = "ended"
"""The process came to its end without an exception."""


def node_name() -> str:
    """Return this machine's name as it stands in file names."""
    return socket.gethostname().split(".")[0] or "node"


class Ledger:
    """Append-only JSON lines of one node, one object a line.

    Every line is one ``write`` to a file opened for appending, so it survives a ``kill -9`` of the process. Where the
    disk is full, lines wait in memory and are written with the next one that fits; training goes on.

    Args:
        folder: The run's folder.
        clock: Where ``time_utc`` and ``mono_s`` come from.
        attempt: Which start of the run this is, from 1.
        node: Name of this node in the file's name.

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
            self.append("history_missing", reason="the last line was cut off by a kill or a full disk and is dropped")

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Write one event and return it as written."""
        with self._lock:
            self._seq += 1
            record: dict[str, Any] = {
                "v": LEDGER_VERSION,
                "seq": self._seq,
                "time_utc": utc_iso(self._clock.time()),
                "mono_s": round(self._clock.monotonic(), 6),
                "node": self._node,
                "pid": os.getpid(),
                "attempt": self.attempt,
                "event": event,
                **fields,
            }
            self._waiting.append(json.dumps(record, allow_nan=False).encode() + b"\n")
            self._write_waiting()
            return record

    def sync(self) -> None:
        """Have the operating system bring the lines to the disk, before a planned exit."""
        with self._lock:
            self._write_waiting()
            try:
                os.fsync(self._file)
            except OSError as error:  # a full disk; what is written is in the system's memory still
                self._report(error)

    def close(self) -> None:
        """Close the file; lines that waited for room on the disk are tried once more."""
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
                "The ledger %s cannot be written (%s). Training goes on and the lines wait in memory; free space there "
                "so that they are not lost.",
                self.path,
                error.strerror,
            )


def _last_sequence(path: Path) -> tuple[int, bool]:
    if not path.exists():
        return 0, False
    data = path.read_bytes()
    torn = bool(data) and not data.endswith(b"\n")
    last = next(parse_lines(reversed(data.split(b"\n"))), {})
    return int(last.get("seq", 0)), torn


def parse_lines(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Return the events in lines of a ledger; what is no line of JSON is left out."""
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            continue  # torn by a kill; the writer that came next says so in an event of its own
        if isinstance(record, dict):
            yield record


def ledger_files(folder: Path) -> list[Path]:
    """Return the ledgers of all nodes."""
    return sorted(folder.glob("ledger.*.jsonl"))


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    """Return all events of a run, of all nodes, in the order in which they were written: a clock may step back.

    Unknown events and fields are kept; a line that a kill tore is dropped.
    """
    files = [parse_lines(path.read_bytes().split(b"\n")) for path in ledger_files(folder)]
    return list(merge(*files, key=lambda record: (record.get("attempt", 0), record.get("time_utc", ""))))


def last_state_event(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the last event that says how the run stands, or None for a run that never started."""
    return next((record for record in reversed(records) if record.get("event") in STATE_EVENTS), None)
