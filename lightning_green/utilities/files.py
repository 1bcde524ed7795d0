"""The cache directory, and atomic writes: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lightning_green.utilities.locks import try_lock
from lightning_green.utilities.processes import boot_id
from lightning_green.utilities.reading import UnreadableFileError, open_regular

CACHE_VARIABLE = "LIGHTNING_GREEN_CACHE_DIR"

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-[0-9a-f]{16}\.tmp")
_RENAMES = 100
"""Renames by other processes that the creation of a directory outlasts."""

_OLD_SECONDS = 86400.0
"""Age after which a temporary file of another machine is removed."""


def cache_directory() -> Path:
    """Return ``LIGHTNING_GREEN_CACHE_DIR`` or, if that is not set, ``lightning-green`` in the user's cache.

    A user without a home directory, as in some containers, has a cache in the directory of temporary files.
    """
    configured = os.environ.get(CACHE_VARIABLE)
    try:
        if configured:
            return Path(configured).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lightning-green"
    except RuntimeError:  # neither HOME nor an entry in the list of users, as in some containers
        return Path(tempfile.gettempdir()) / f"lightning-green-{os.geteuid()}"


def create_directory(path: Path) -> None:
    """Create a directory and its parents, unless it exists, also while another process renames it.

    ``Path.mkdir`` raises FileExistsError if the directory exists when it creates it and is renamed before it looks.

    Raises:
        OSError: If it cannot be created.

    """
    for _ in range(_RENAMES):
        with suppress(FileExistsError):
            path.mkdir(parents=True, exist_ok=True)
            return
    path.mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_file(path: Path, mode: str = "wb", *, durable: bool = True, permissions: int = 0o644) -> Iterator[IO[Any]]:
    r"""Open a temporary file next to ``path`` that replaces it when the block ends without an exception.

    A kill, an exception or a full disk leaves the old content of ``path`` unchanged. The temporary file has a random
    name and is locked, so ``remove_temporary_files`` removes it after a kill. Several processes may write one path.

    Args:
        path: The file to replace. Its permissions are kept, except those that ``permissions`` excludes for other users.
        mode: ``"w"`` for text (UTF-8), ``"wb"`` for bytes.
        durable: Whether the new content survives a power failure once the block has ended.
        permissions: Permission bits of a new file.

    Raises:
        OSError: If the file cannot be written.

    Examples:
        ```python
        with atomic_file(Path("values.csv"), "w") as file:
            file.write("time,value\n")
        ```

    """
    temporary, descriptor = _create_temporary(path, permissions)
    try:
        with open(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.replace(temporary, path)  # while it is locked
    except BaseException:  # a partial file would fill the disk
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def _create_temporary(path: Path, permissions: int) -> tuple[Path, int]:
    """Return a new locked file next to ``path`` and its descriptor."""
    while True:
        temporary = path.with_name(f".{path.name[:40]}.{_machine()}-{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, _NEW_FILE, permissions)
        if try_lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # a process that removes temporary files was faster
    with suppress(OSError):
        known = os.stat(path, follow_symlinks=False)
        if stat.S_ISREG(known.st_mode):
            os.fchmod(descriptor, stat.S_IMODE(known.st_mode) & (0o777 if permissions & 0o077 else 0o600))
    return temporary, descriptor


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of ``atomic_file`` whose process was killed; those of running processes are kept."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _TEMPORARY.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False):
                _remove_if_dead(Path(entry.path), match[1] == _machine())


def _remove_if_dead(path: Path, is_of_this_machine: bool) -> None:
    with suppress(OSError, UnreadableFileError), open_regular(path) as file:
        old = time.time() - os.fstat(file.fileno()).st_mtime > _OLD_SECONDS
        free = try_lock(file.fileno())
        # network file systems may not share locks
        if (free and is_of_this_machine) or (free is not False and old):
            path.unlink(missing_ok=True)


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    """Return eight digits that identify this machine until it is started again."""
    return hashlib.sha256((boot_id() or socket.gethostname()).encode()).hexdigest()[:8]


def sync_directory(path: Path) -> None:
    """Flush the entries of a directory to disk, so that a renamed file keeps its new name after a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, indent: int | None = 2, durable: bool = True, private: bool = False) -> None:
    """Replace ``path`` by ``value`` as JSON.

    Args:
        path: The file.
        value: Its new content.
        indent: Spaces per level; None for one line.
        durable: Whether the new content survives a power failure.
        private: Whether only the owner may read it.

    Raises:
        OSError: If the file cannot be written.

    """
    text = json.dumps(value, indent=indent)
    with atomic_file(path, "w", durable=durable, permissions=0o600 if private else 0o644) as file:
        file.write(text)


def is_local_path(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is on this machine, rather than an address such as ``s3://bucket/runs``.

    Examples:
        >>> is_local_path("runs"), is_local_path("s3://bucket/runs"), is_local_path("file:///runs")
        (True, False, False)

    """
    return "://" not in os.fspath(path)
