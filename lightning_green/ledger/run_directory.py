"""The run directory: its record ``run.json``, its locks and its heartbeats."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
import socket
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from lightning_green.ledger.role_lock import Heartbeat, RoleLock
from lightning_green.ledger.role_lock import RunIsAliveError as RunIsAliveError
from lightning_green.ledger.run_record import check_record
from lightning_green.utilities.files import create_directory, remove_temporary_files, write_json
from lightning_green.utilities.reading import UnreadableFileError, read_json

RUN_DIR_VARIABLE = "LIGHTNING_GREEN_RUN_DIR"
RESUME_VARIABLE = "LIGHTNING_GREEN_RESUME"
FORCE_VARIABLE = "LIGHTNING_GREEN_FORCE"
SUPERVISED_VARIABLE = "LIGHTNING_GREEN_SUPERVISED"
"""Set by the supervisor: its process id."""
ATTEMPT_VARIABLE = "LIGHTNING_GREEN_ATTEMPT"
RESTARTED_VARIABLE = "LIGHTNING_GREEN_RESTARTED"
"""Set if the supervisor, or its launcher, starts a command again that has already trained."""
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
ROLES = ("run", "supervisor")

log = logging.getLogger(__name__)

_ranks_files: dict[str, int] = {}
_RANKS_FLAGS = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class DamagedRunError(ValueError):
    """The record of a run cannot be read.

    Args:
        path: Run directory.
        reason: What is wrong with its record.

    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"The run in {path} is damaged: {reason}. Move the directory away, or choose another one with `--run-dir`."
        )
        self._arguments = path, reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        return DamagedRunError, self._arguments


class RunDirectory:
    """One run on disk.

    Args:
        path: Path of the directory. It is created if it does not exist.

    Attributes:
        path: Path of the directory.
        record: Content of ``run.json``: schema version, run id, first start, deadline, arguments, fingerprints, ids of
            the loggers' runs.
        is_new: Whether the directory did not exist before.
        earlier: Where ``move_away`` has moved an earlier run with the same path, or None.

    Raises:
        OSError: If the directory cannot be created or written.
        RuntimeError: If ``run.json`` was written by an incompatible version.
        DamagedRunError: If ``run.json`` is damaged.

    """

    def __init__(self, path: Path) -> None:
        self.path, self.is_new = path, not path.exists()
        self.earlier: Path | None = None
        create_directory(path)
        (path / "checkpoints").mkdir(mode=0o700, exist_ok=True)
        self._on_disk: dict[str, Any] | None = None
        self.record: dict[str, Any] = self._read()
        self._lock: RoleLock | None = None
        self._saving = threading.Lock()
        self._unsaved = self._warned = False

    def _read(self) -> dict[str, Any]:
        record = load_record(self.path)
        if record is None:
            return {"schema": SCHEMA_VERSION, "run_id": uuid.uuid4().hex[:12]}
        self._on_disk = deepcopy(record)
        return record

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
        """Write ``run.json`` if the record has changed.

        If an earlier record is on disk, a failure logs one warning, and ``beat`` tries again.

        Raises:
            OSError: If it cannot be written and there is no earlier one.

        """
        with self._saving:
            record = self._snapshot()
            self._unsaved = record != self._on_disk
            if not self._unsaved:
                return
            try:
                if self._lock is not None and not self._lock.is_current and self.exists():
                    raise OSError(errno.ENOENT, "the run directory was moved or deleted")
                write_json(self.path / "run.json", record, private=True)
            except OSError as error:
                if not self.exists():
                    raise
                if not self._warned:
                    log.warning("%s could not be written (%s).", self.path / "run.json", error.strerror)
                self._warned = True
            else:
                self._on_disk, self._unsaved, self._warned = record, False, False

    def _snapshot(self) -> dict[str, Any]:
        while True:
            try:
                return deepcopy(self.record)
            except RuntimeError:  # noqa: PERF203 - a fit in another thread changes the record
                time.sleep(0.001)

    def lock(self, role: str) -> None:
        """Lock the directory for one role until ``unlock`` is called or this process ends.

        Temporary files of killed processes are removed.

        Args:
            role: ``"run"`` or ``"supervisor"``.

        Raises:
            OSError: If the lock file cannot be created.
            RunIsAliveError: If another process has this role.

        """
        lock = RoleLock(self.path, role)
        lock.acquire()
        self._lock = lock
        for folder in (self.path, self.path / "checkpoints", self.path / RANDOM_STATES):
            remove_temporary_files(folder)

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def beat(self) -> None:
        """Write the heartbeat if the last one is older than ten seconds, and ``run.json`` if that has failed before."""
        if self._lock is not None:
            self._lock.beat()
            if self._unsaved:
                self.save()

    def is_alive(self, role: str = "run") -> bool:
        """Return whether another process uses the directory in this role. Writes nothing."""
        return is_alive(self.path, role)

    def is_owned_by(self, role: str, pid: int) -> bool:
        """Return whether a process of this machine uses the directory in this role."""
        other = Heartbeat.read(self.path / f"{role}.heartbeat")
        return bool(other and other.host == socket.gethostname() and other.pid == pid) and self.is_alive(role)

    def was_abandoned(self, role: str) -> bool:
        """Return whether the last process in this role was killed: its heartbeat file still exists."""
        return os.path.lexists(self.path / f"{role}.heartbeat") and not self.is_alive(role)

    def refuse_if_alive(self, role: str) -> None:
        """Check that no other process uses the directory in this role.

        Raises:
            RunIsAliveError: If another process does.

        """
        if self.is_alive(role):
            raise RunIsAliveError(self.describe_owner(role))

    def describe_owner(self, role: str) -> str:
        """Return an error message that names the process that uses the directory."""
        return RoleLock(self.path, role).describe_owner()

    def move_away(self) -> Path:
        """Rename the directory to the first unused ``<name>.<n>`` and return the new path.

        This process has locked it, and keeps that lock until ``unlock`` is called. While it is renamed, all its runs
        are locked, so no process loses the directory that it uses.

        Raises:
            OSError: If it cannot be renamed.
            RunIsAliveError: If another process uses the directory or one of its runs.

        """
        with ExitStack() as locks:
            for path in run_directories(self.path):
                for role in ROLES:
                    if self._lock is None or (path, role) != (self.path, self._lock.role):
                        other = RoleLock(path, role)
                        other.acquire(writes_heartbeat=False)
                        locks.callback(other.release)
            if self._lock is not None and not self._lock.is_current:
                raise RunIsAliveError(self.describe_owner(self._lock.role))
            archive = archive_directory(self.path)
            if self._lock is not None:
                self._lock.follow(archive)
            return archive


def is_alive(path: Path, role: str = "run") -> bool:
    """Return whether a process uses a run directory in this role. Writes nothing."""
    return RoleLock(path, role).is_alive()


def load_record(path: Path) -> dict[str, Any] | None:
    """Return the content of ``run.json`` in a run directory; None if there is no such file. Writes nothing.

    Raises:
        OSError: If it cannot be read.
        RuntimeError: If it was written by an incompatible version.
        DamagedRunError: If it is damaged.

    """
    file = path / "run.json"
    try:
        record = read_json(file)
    except FileNotFoundError:
        return None
    except UnreadableFileError as error:
        raise DamagedRunError(path, str(error)) from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA_VERSION:
        raise RuntimeError(
            f"{file} was written by another version of Lightning Green. Move the directory away, or choose another "
            "one with `--run-dir`."
        )
    try:
        check_record(record)
    except ValueError as error:
        raise DamagedRunError(path, f"{file} contains an unexpected value: {error}") from error
    return record


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of ``run.json`` in a run directory; an empty dict if it cannot be read. Writes nothing."""
    try:
        record = read_json(path / "run.json")
        check_record(record)
    except (OSError, ValueError):
        return {}
    return dict(record)


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


def archive_directory(path: Path) -> Path:
    """Rename a run directory to the first unused ``<name>.<n>`` and return the new path."""
    for number in itertools.count(1):
        archive = path.with_name(f"{path.name}.{number}")
        if not os.path.lexists(archive):
            with suppress(FileExistsError):
                path.rename(archive)
                return archive
    raise AssertionError


def final_path(path: Path, fit: int) -> Path:
    """Return the path of the final training state of a finished fit."""
    return path / "checkpoints" / f"fit{fit}-final.ckpt"


def remove_kept_files(path: Path) -> None:
    """Remove the checkpoint files of finished fits. Call it when no fit has to be restored any more."""
    shutil.rmtree(path / KEPT, ignore_errors=True)


def run_directories(home: Path) -> list[Path]:
    """Return the run directories of a command: the given directory, then those in its subdirectory ``runs/``."""
    return [home, *sorted(path.parent for path in (home / RUNS).glob("*/run.json"))]
