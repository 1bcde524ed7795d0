"""Reading files that another user may have planted: in a shared cache, or in a run directory from elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from lightning_green.utilities.reading import UnreadableFileError, read_bytes

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_LONGEST_NAME = 255


class UntrustedFileError(OSError):
    """A file is not believed. The message names the reason."""


def read_own(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file that belongs to this user (or root) and that no other user can write.

    Args:
        path: The file.
        most_bytes: Size of the largest file that is read.

    Raises:
        UntrustedFileError: If the file does not have these properties, or is larger.
        OSError: If it cannot be read.

    """
    try:
        return read_bytes(path, most_bytes, own=True)
    except UnreadableFileError as error:
        raise UntrustedFileError(str(error)) from None


def open_own(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file of this process for writing and return its descriptor; an opener for ``open``.

    A new file is private. A symbolic link is not followed: in a directory from elsewhere, it may point to a file of the
    user.

    Args:
        path: The file.
        flags: Flags of ``os.open``.

    Raises:
        UntrustedFileError: If it is no regular file.
        OSError: If it cannot be opened.

    """
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise _refusal(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UntrustedFileError(f"{os.fspath(path)} is not a regular file")
    os.set_blocking(descriptor, True)  # a child process may inherit it
    return descriptor


def make_private(folder: Path) -> None:
    """Create a directory, and the missing ones above it, for this user only. An existing directory is unchanged.

    Raises:
        OSError: If it cannot be created.

    """
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def is_shared(folder: Path) -> bool:
    """Return whether other users can replace the files in a folder: it is theirs, or they may write to it.

    In a folder with the sticky bit, such as ``/tmp``, they can add files and cannot replace any.
    """
    status = folder.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return True
    return bool(status.st_mode & _WRITABLE_BY_OTHERS) and not status.st_mode & stat.S_ISVTX


def is_file_name(text: object) -> bool:
    """Return whether a value from a record is one plain name: no path, no hidden file, no control character.

    Examples:
        >>> [is_file_name(text) for text in ("version_3", "2024-05-01_10-00", "../home", "a/b", ".", 3)]
        [True, True, False, False, False, False]

    """
    return (
        isinstance(text, str)
        and 0 < len(text) <= _LONGEST_NAME
        and text.isprintable()
        and not text.startswith((".", "-", "~"))
        and not any(separator in text for separator in "/\\")
    )


def _refusal(path: str | os.PathLike[str], error: OSError) -> OSError:
    """Return the error to raise for one of ``os.open``: that of a link or a socket is about a planted file."""
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return UntrustedFileError(f"{os.fspath(path)} is not a regular file")
    return error
