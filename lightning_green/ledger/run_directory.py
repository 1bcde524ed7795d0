"""A run is a folder: its name, its record, and the lock that keeps a second process out of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import threading
import time
import uuid
from copy import deepcopy
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lightning_green.utilities.files import write_json

RUN_DIR_VARIABLE = "LIGHTNING_GREEN_RUN_DIR"
RESUME_VARIABLE = "LIGHTNING_GREEN_RESUME"
FORCE_VARIABLE = "LIGHTNING_GREEN_FORCE"
SUPERVISED_VARIABLE = "LIGHTNING_GREEN_SUPERVISED"
"""Process id of the supervisor."""
ATTEMPT_VARIABLE = "LIGHTNING_GREEN_ATTEMPT"
"""``<supervisor session>/<attempt>``: which start of its command a process belongs to."""
RUNS = "runs"
"""Directory of the further runs of a command, below that of the first one."""
KEPT = "kept"
"""Directory of the checkpoint files of finished fits, below that of their run."""
SCHEMA_VERSION = 1
HEARTBEAT_SECONDS = 10.0
HEARTBEAT_STALE_SECONDS = 90.0
LOCK_SECONDS = 0.3
"""How long to try for a lock: whoever only looks whether it is held has it for a moment."""


class RunIsAliveError(RuntimeError):
    """Another process is in this run's folder."""


class RunFolder:
    """One run on disk.

    Args:
        path: The folder; made if it is not there.

    Attributes:
        path: The folder.
        record: Content of ``run.json``: schema version, run id, first start, deadline, arguments, fingerprints, ids of
            the loggers' runs.

    Raises:
        OSError: If the folder cannot be made or written.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / "checkpoints").mkdir(exist_ok=True)
        self._on_disk: dict[str, Any] | None = None
        self.record: dict[str, Any] = self._read()
        self._lock: FileLock | None = None
        self._saving = threading.Lock()
        self._next_heartbeat = 0.0

    def _read(self) -> dict[str, Any]:
        file = self.path / "run.json"
        if file.exists():
            record = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(record, dict) and record.get("schema") == SCHEMA_VERSION:
                self._on_disk = deepcopy(record)
                return record
            raise RuntimeError(
                f"{file} was written by another version of Lightning Green. Move the folder away, or use another one "
                "with `--run-dir`."
            )
        return {"schema": SCHEMA_VERSION, "run_id": uuid.uuid4().hex[:12]}

    def exists(self) -> bool:
        """Return whether its record has been written."""
        return self._on_disk is not None

    def read(self) -> None:
        """Read ``run.json`` again."""
        self.record = self._read()

    def save(self) -> None:
        """Write ``run.json``, if there is anything new in it."""
        with self._saving:
            record = self._snapshot()
            if record != self._on_disk:
                write_json(self.path / "run.json", record, private=True)
                self._on_disk = record

    def _snapshot(self) -> dict[str, Any]:
        while True:
            try:
                return deepcopy(self.record)
            except RuntimeError:  # noqa: PERF203 - a fit in another thread is adding to it
                time.sleep(0.001)

    def lock(self, role: str) -> None:
        """Keep every other ``role`` (``"run"`` or ``"supervisor"``) out of this folder until this process ends.

        Raises:
            RunIsAliveError: If another process is in it.

        """
        lock = FileLock(str(self.path / f"{role}.lock"))
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise RunIsAliveError(self.describe_owner(role)) from None
        other = self._heartbeat(role)
        if other and other.get("host") != socket.gethostname() and time.time() - other["at"] < HEARTBEAT_STALE_SECONDS:
            lock.release()  # a lock does not always reach over a network file system; the heartbeat does
            raise RunIsAliveError(self.describe_owner(role))
        self._lock = lock
        self._role = role
        self.beat(force=True)

    def unlock(self) -> None:
        """Let others in."""
        if self._lock is not None:
            (self.path / f"{self._role}.heartbeat").unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def beat(self, force: bool = False) -> None:
        """Say that this process is alive; called often, writes every ten seconds."""
        at = time.monotonic()
        if self._lock is not None and (force or at >= self._next_heartbeat):
            self._next_heartbeat = at + HEARTBEAT_SECONDS
            beat = {"host": socket.gethostname(), "pid": os.getpid(), "at": time.time()}
            write_json(self.path / f"{self._role}.heartbeat", beat, durable=False)

    def is_alive(self, role: str = "run") -> bool:
        """Return whether another process is in this folder now; writes nothing, so it may be somebody else's folder."""
        locked = _is_locked(self.path / f"{role}.lock")
        other = self._heartbeat(role)
        if locked or other is None or (locked is False and other.get("host") == socket.gethostname()):
            return bool(locked)
        return bool(time.time() - other["at"] < HEARTBEAT_STALE_SECONDS)

    def was_left(self, role: str) -> bool:
        """Return whether whoever held ``role`` last was killed: it did not take its heartbeat away."""
        return (self.path / f"{role}.heartbeat").exists() and not self.is_alive(role)

    def refuse_if_alive(self, role: str) -> None:
        """Raise where another process is in this folder.

        Raises:
            RunIsAliveError: If there is one.

        """
        if self.is_alive(role):
            raise RunIsAliveError(self.describe_owner(role))

    def _heartbeat(self, role: str) -> dict[str, Any] | None:
        try:
            beat = json.loads((self.path / f"{role}.heartbeat").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return beat if isinstance(beat, dict) and isinstance(beat.get("at"), float) else None

    def describe_owner(self, role: str) -> str:
        """Return a sentence about the process that this directory belongs to now."""
        other = self._heartbeat(role)
        who = f"process {other['pid']} on {other['host']}" if other else "another process"
        return (
            f"The run in {self.path} is alive: {who} is in it. Wait for it, stop it, or give this one a folder of its "
            "own with `lightning-green run --run-dir DIR` (or LIGHTNING_GREEN_RUN_DIR=DIR)."
        )


def _is_locked(path: Path) -> bool | None:
    """Return whether a process of this machine holds a lock; None where that cannot be seen."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:  # not ours to read
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a network file system without locks
        return None
    finally:
        os.close(file)
    return False


def set_aside(path: Path) -> Path:
    """Rename a run's folder to the first free ``<name>.<n>`` and return that."""
    number = 1
    while (kept := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    path.rename(kept)
    return kept


def final_path(path: Path, fit: int) -> Path:
    """Return where a run's directory has the final state of a finished fit."""
    return path / "checkpoints" / f"fit{fit}-final.ckpt"


def remove_kept_files(path: Path) -> None:
    """Remove the checkpoint files that were kept for a restore of finished fits, once nothing is restored any more."""
    shutil.rmtree(path / KEPT, ignore_errors=True)


def run_directories(home: Path) -> list[Path]:
    """Return the directories of all runs of a command: that of the first one, and those below it."""
    return [home, *sorted(path.parent for path in (home / RUNS).glob("*/run.json"))]
