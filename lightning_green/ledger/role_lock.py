"""The lock and the heartbeat of a process that uses a run directory in one role."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lightning_green.utilities.files import write_json
from lightning_green.utilities.locks import ProcessLock, is_locked
from lightning_green.utilities.processes import boot_id
from lightning_green.utilities.reading import UnreadableFileError, read_json

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
HEARTBEAT_STALE_SECONDS = 90.0
"""Age after which a heartbeat does not count, and how long the heartbeat of another machine is watched at most."""
LOCK_SECONDS = 0.3
"""Lock timeout in seconds. Nonzero because ``is_alive`` takes the lock briefly."""
_POLL_SECONDS = 0.5
_MAX_BYTES = 4096


class RunIsAliveError(RuntimeError):
    """Another process uses the run directory."""


@dataclass(frozen=True)
class Heartbeat:
    """The last sign of life of a process.

    Args:
        host: Name of its machine.
        boot: Identifier of the kernel it runs on, which containers of a machine share; empty if unknown.
        pid: Its process id.
        written: Time at which the file was written, by the clock of the file system.
        text: Content of the file, which differs between two heartbeats.

    """

    host: str
    boot: str
    pid: int
    written: float
    text: str

    @classmethod
    def read(cls, path: Path) -> Heartbeat | None:
        """Return the heartbeat in a file; None if there is none or it cannot be read."""
        try:
            record = read_json(path, _MAX_BYTES)
            written = path.stat().st_mtime
        except (OSError, UnreadableFileError):
            return None
        if not isinstance(record, dict):
            return None
        host, boot, pid = record.get("host"), record.get("boot", ""), record.get("pid")
        if not (isinstance(host, str) and isinstance(boot, str) and isinstance(pid, int)):
            return None
        if not isinstance(record.get("at"), (int, float)) or not 0 < pid < 2**31:
            return None
        return cls(host, boot, pid, written, repr(record))

    @property
    def is_of_this_machine(self) -> bool:
        """Whether the process shares the locks of this one. A restarted container may have another host name."""
        return self.host == socket.gethostname() or (self.boot != "" and self.boot == boot_id())

    def is_fresh(self, now: float) -> bool:
        """Return whether it was written in the last 90 seconds. One from the future was written by another clock."""
        return -HEARTBEAT_SECONDS < now - self.written < HEARTBEAT_STALE_SECONDS


class RoleLock:
    """Locks a run directory for one role, ``"run"`` or ``"supervisor"``.

    The lock is one of the operating system. Network file systems may not share locks between machines, so the process
    also writes a heartbeat, which is removed when the lock is released.

    Args:
        folder: Run directory.
        role: The role.

    """

    def __init__(self, folder: Path, role: str) -> None:
        self.folder, self.role = folder, role
        self.heartbeat_path = folder / f"{role}.heartbeat"
        self._lock = ProcessLock(folder / f"{role}.lock")
        self._next_heartbeat = 0.0
        self._beating = threading.Lock()
        self._warned = False
        self._folder_identity: tuple[int, int] | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock.is_held

    @property
    def is_current(self) -> bool:
        """Whether it holds the lock of the directory that has this path now: the directory may have been renamed."""
        return self._lock.is_current

    def acquire(self, writes_heartbeat: bool = True) -> None:
        """Acquire the lock.

        The heartbeat of a process of another machine is watched: it is running if the heartbeat changes.

        Args:
            writes_heartbeat: Whether to write a heartbeat, which a lock for a moment does not need.

        Raises:
            OSError: If the lock file cannot be created.
            RunIsAliveError: If another process has this role.

        """
        if not self._lock.acquire(LOCK_SECONDS):
            raise RunIsAliveError(self.describe_owner())
        try:
            if self._other_machine_is_alive():  # network file systems may not share locks, but share the heartbeat file
                raise RunIsAliveError(self.describe_owner())
        except BaseException:
            self._lock.release()
            raise
        self._folder_identity = _identity(self.folder)
        if writes_heartbeat:
            self.beat(force=True)

    def follow(self, folder: Path) -> None:
        """Keep the lock of a directory that this process has renamed."""
        with self._beating:
            self.folder, self.heartbeat_path = folder, folder / self.heartbeat_path.name
            self._lock.path = folder / self._lock.path.name

    def release(self) -> None:
        """Remove the heartbeat and release the lock."""
        with self._beating:
            if self._lock.is_current:  # another process may use a new directory at this path
                with suppress(OSError):
                    self.heartbeat_path.unlink(missing_ok=True)
            self._lock.release()

    def beat(self, force: bool = False) -> None:
        """Write the heartbeat if the last one is older than ten seconds or if ``force`` is True.

        A failure logs one warning, and the next call tries again.
        """
        with self._beating:
            at = time.monotonic()
            if not self._lock.is_held or not (force or at >= self._next_heartbeat):
                return
            self._next_heartbeat = at + HEARTBEAT_SECONDS
            if not self._lock.is_current and not self._renew():
                self._warn("was moved or deleted")
                return
            beat = {"host": socket.gethostname(), "boot": boot_id(), "pid": os.getpid(), "at": time.time()}
            try:
                write_json(self.heartbeat_path, beat, durable=False)
            except OSError as error:
                self._warn(f"cannot be written ({error.strerror})")
            else:
                if self._warned:
                    log.warning("The run directory %s can be written again.", self.folder)
                    self._warned = False

    def is_alive(self) -> bool:
        """Return whether another process has this role. Writes nothing and does not wait."""
        locked, other = is_locked(self._lock.path), Heartbeat.read(self.heartbeat_path)
        if locked or other is None or (locked is False and other.is_of_this_machine):
            return bool(locked)
        return other.is_fresh(time.time())

    def describe_owner(self) -> str:
        """Return an error message that names the process that uses the directory."""
        other = Heartbeat.read(self.heartbeat_path)
        owner = f"process {other.pid} on {_printable(other.host)}" if other else "another process"
        return (
            f"The run in {self.folder} is already running in {owner}. Wait for it, stop it, or choose another "
            "directory with `lightning-green run --run-dir DIR` (or LIGHTNING_GREEN_RUN_DIR=DIR)."
        )

    def _other_machine_is_alive(self) -> bool:
        """Return whether the heartbeat of another machine changes, within the time in which it would."""
        first = Heartbeat.read(self.heartbeat_path)
        if first is None or (first.is_of_this_machine and self._lock.is_effective):
            return False
        age = max(0.0, self._file_system_time() - first.written)  # negative after the clock was set back
        if age > HEARTBEAT_STALE_SECONDS:
            return False
        seconds = HEARTBEAT_STALE_SECONDS - age
        log.warning(
            "The run in %s was last used by process %d on %s. Waiting up to %.0f s for another heartbeat of it.",
            self.folder,
            first.pid,
            _printable(first.host),
            seconds,
        )
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            if not os.path.lexists(self.heartbeat_path):  # it has ended
                return False
            now = Heartbeat.read(self.heartbeat_path)
            if now is not None and now.text != first.text:
                return True
        return False

    def _file_system_time(self) -> float:
        """Return the time by the clock that the heartbeat's file has its time from."""
        probe = self.folder / f".clock-{secrets.token_hex(8)}"
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def _renew(self) -> bool:
        """Lock the directory again if only the file of the lock was deleted."""
        if _identity(self.folder) != self._folder_identity:
            return False
        lock = ProcessLock(self._lock.path)
        with suppress(OSError):
            if lock.acquire():
                self._lock.release()
                self._lock = lock
                return True
        return False

    def _warn(self, problem: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "The run directory %s %s. The process continues; other processes may not see that the run is in use.",
                self.folder,
                problem,
            )


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text[:80])
