"""The run directory: its record ``run.json``, its locks and its heartbeats."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import threading
import time
import uuid
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lightning_green.utilities.files import write_json

RUN_DIR_VARIABLE = "LIGHTNING_GREEN_RUN_DIR"
RESUME_VARIABLE = "LIGHTNING_GREEN_RESUME"
FORCE_VARIABLE = "LIGHTNING_GREEN_FORCE"
SUPERVISED_VARIABLE = "LIGHTNING_GREEN_SUPERVISED"
"""Set by the supervisor: its process id."""
ATTEMPT_VARIABLE = "LIGHTNING_GREEN_ATTEMPT"
"""Set by the supervisor: ``<session>/<attempt>``, the attempt that a process belongs to."""
RUNS = "runs"
"""Subdirectory of the second and all further runs of a command."""
RANDOM_STATES = "random_states"
"""Subdirectory of the random states with which the processes of a command began."""
RANKS_FILE = "ranks.lock"
"""File that every process of a training keeps open, so that a supervisor finds them."""
KEPT = "kept"
"""Subdirectory of the checkpoint files of finished fits."""
SCHEMA_VERSION = 1
HEARTBEAT_SECONDS = 10.0
HEARTBEAT_STALE_SECONDS = 90.0
LOCK_SECONDS = 0.3
"""Lock timeout in seconds. Nonzero because ``RunDirectory.is_alive`` takes the lock briefly."""


_ranks_files: dict[str, int] = {}
_RANKS_FLAGS = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class RunIsAliveError(RuntimeError):
    """Another process uses the run directory."""


class RunDirectory:
    """One run on disk.

    Args:
        path: Path of the directory. It is created if it does not exist.

    Attributes:
        path: Path of the directory.
        record: Content of ``run.json``: schema version, run id, first start, deadline, arguments, fingerprints, ids of
            the loggers' runs.

    Raises:
        OSError: If the directory cannot be created or written.
        RuntimeError: If ``run.json`` was written by an incompatible version.
        ValueError: If ``run.json`` is damaged.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / "checkpoints").mkdir(mode=0o700, exist_ok=True)
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
                f"{file} was written by another version of Lightning Green. Move the directory away, or choose another "
                "one with `--run-dir`."
            )
        return {"schema": SCHEMA_VERSION, "run_id": uuid.uuid4().hex[:12]}

    def exists(self) -> bool:
        """Return whether ``run.json`` has been written."""
        return self._on_disk is not None

    def read(self) -> None:
        """Read ``run.json`` again."""
        self.record = self._read()

    def merge(self) -> set[int]:
        """Add what processes that this one has started have recorded; return the fits that were claimed.

        This process waits while they train, so it has no newer values of the same fits.
        """
        record = self.record
        try:
            found = self._read() if self.exists() else record
        except (OSError, RuntimeError, ValueError):  # it is written again
            found = record
        for key in ("fits", "loggers"):
            if key in record or key in found:
                found[key] = {**found.get(key, {}), **record.get(key, {})}
        self.record = {**record, **{key: found[key] for key in ("fits", "loggers", "script_process") if key in found}}
        return set(found.get("script_process", {}).get("claimed", ()))

    def save(self) -> None:
        """Write ``run.json`` if the record has changed."""
        with self._saving:
            record = self._snapshot()
            if record != self._on_disk:
                write_json(self.path / "run.json", record, private=True)
                self._on_disk = record

    def _snapshot(self) -> dict[str, Any]:
        while True:
            try:
                return deepcopy(self.record)
            except RuntimeError:  # noqa: PERF203 - a fit in another thread changes the record
                time.sleep(0.001)

    def lock(self, role: str) -> None:
        """Lock the directory for one role until ``unlock`` is called or this process ends.

        Args:
            role: ``"run"`` or ``"supervisor"``.

        Raises:
            RunIsAliveError: If another process has this role.

        """
        lock = FileLock(str(self.path / f"{role}.lock"))
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise RunIsAliveError(self.describe_owner(role)) from None
        other = self._heartbeat(role)
        if other and other.get("host") != socket.gethostname() and time.time() - other["at"] < HEARTBEAT_STALE_SECONDS:
            lock.release()  # network file systems may not share locks, but share the heartbeat file
            raise RunIsAliveError(self.describe_owner(role))
        self._lock = lock
        self._role = role
        self.beat(force=True)

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            (self.path / f"{self._role}.heartbeat").unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def beat(self, force: bool = False) -> None:
        """Write the heartbeat if the last one is older than ten seconds or if ``force`` is True."""
        at = time.monotonic()
        if self._lock is not None and (force or at >= self._next_heartbeat):
            self._next_heartbeat = at + HEARTBEAT_SECONDS
            beat = {"host": socket.gethostname(), "pid": os.getpid(), "at": time.time()}
            write_json(self.path / f"{self._role}.heartbeat", beat, durable=False)

    def is_alive(self, role: str = "run") -> bool:
        """Return whether another process uses the directory in this role. Writes nothing."""
        locked = _is_locked(self.path / f"{role}.lock")
        other = self._heartbeat(role)
        if locked or other is None or (locked is False and other.get("host") == socket.gethostname()):
            return bool(locked)
        return bool(time.time() - other["at"] < HEARTBEAT_STALE_SECONDS)

    def is_owned_by(self, role: str, pid: int) -> bool:
        """Return whether a process of this machine uses the directory in this role."""
        other = self._heartbeat(role)
        return bool(other and other.get("host") == socket.gethostname() and other.get("pid") == pid) and self.is_alive(
            role
        )

    def was_abandoned(self, role: str) -> bool:
        """Return whether the last process in this role was killed: its heartbeat file still exists."""
        return (self.path / f"{role}.heartbeat").exists() and not self.is_alive(role)

    def refuse_if_alive(self, role: str) -> None:
        """Check that no other process uses the directory in this role.

        Raises:
            RunIsAliveError: If another process does.

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
        """Return an error message that names the process that uses the directory."""
        other = self._heartbeat(role)
        owner = f"process {other['pid']} on {other['host']}" if other else "another process"
        return (
            f"The run in {self.path} is already running in {owner}. Wait for it, stop it, or choose another directory "
            "with `lightning-green run --run-dir DIR` (or LIGHTNING_GREEN_RUN_DIR=DIR)."
        )


def keep_ranks_file_open() -> None:
    """Open the file that marks this process as one of a supervised training, until the process ends."""
    home = os.environ.get(RUN_DIR_VARIABLE)
    if home and SUPERVISED_VARIABLE in os.environ and home not in _ranks_files:
        with suppress(OSError):  # the supervisor then does not find this process
            _ranks_files[home] = os.open(Path(home) / RANKS_FILE, _RANKS_FLAGS, 0o600)


def _close_ranks_files() -> None:
    """Close what a forked process inherits: a worker of a data loader, for example, is no rank."""
    for file in _ranks_files.values():
        with suppress(OSError):
            os.close(file)
    _ranks_files.clear()


os.register_at_fork(after_in_child=_close_ranks_files)


def _is_locked(path: Path) -> bool | None:
    """Return whether a process of this machine holds a lock; None if this cannot be determined."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:  # no permission to read it
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


def archive_directory(path: Path) -> Path:
    """Rename a run directory to the first unused ``<name>.<n>`` and return the new path."""
    number = 1
    while (archive := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    path.rename(archive)
    return archive


def final_path(path: Path, fit: int) -> Path:
    """Return the path of the final training state of a finished fit."""
    return path / "checkpoints" / f"fit{fit}-final.ckpt"


def remove_kept_files(path: Path) -> None:
    """Remove the checkpoint files of finished fits. Call it when no fit has to be restored any more."""
    shutil.rmtree(path / KEPT, ignore_errors=True)


def run_directories(home: Path) -> list[Path]:
    """Return the run directories of a command: the given directory, then those in its subdirectory ``runs/``."""
    return [home, *sorted(path.parent for path in (home / RUNS).glob("*/run.json"))]
