"""Locks between processes, on files."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import weakref
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_CONTENDED = (errno.EAGAIN, errno.EACCES)
_POLL_SECONDS = 0.02


class ProcessLock:
    """A lock on a file that this process holds until it releases the lock or ends.

    A forked process does not inherit it. A file that was renamed or deleted in the meantime does not count: the lock
    is that of the path. On a file system without locks, every process acquires it.

    Args:
        path: The file. It is created in ``acquire`` and never deleted.

    Attributes:
        is_effective: Whether the file system has locks; known after ``acquire``.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self.is_effective = False

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    @property
    def is_current(self) -> bool:
        """Whether this object holds the lock and its file still has this path."""
        return self._file is not None and _is_at(self._file, self.path)

    def acquire(self, timeout: float = 0.0) -> bool:
        """Acquire the lock and return whether that was possible.

        Args:
            timeout: How long to try, in seconds.

        Raises:
            OSError: If the file cannot be created or opened.

        """
        until = time.monotonic() + timeout
        while True:
            if self._try():
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Release the lock."""
        if self._file is not None:
            _held.discard(self)
            file, self._file = self._file, None
            with suppress(OSError):  # without locks on this file system
                fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)

    def _try(self) -> bool:
        try:
            file = os.open(self.path, _FLAGS | os.O_CREAT, 0o644)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        locked = False
        try:
            found = try_lock(file)
            locked, self.is_effective = found is not False and _is_at(file, self.path), found is not None
        finally:
            if not locked:
                os.close(file)
        if locked:
            self._file = file
            _held.add(self)
        return locked

    def _forget(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None


def try_lock(file: int, shared: bool = False) -> bool | None:
    """Lock an open file; return False if another process holds it, and None on a file system without locks."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _CONTENDED else None
    return True


def is_locked(path: Path) -> bool | None:
    """Return whether a process of this machine holds a lock; None if this cannot be determined. Writes nothing."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # no permission to read it
        return None
    try:
        free = try_lock(file, shared=True)
    finally:
        os.close(file)
    return None if free is None else not free


def _is_at(file: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    here = os.fstat(file)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


_held: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


def _forget_inherited() -> None:
    """Close the files of locks in a forked process, which would hold them after the end of its parent."""
    for lock in list(_held):
        lock._forget()
    _held.clear()


os.register_at_fork(after_in_child=_forget_inherited)
