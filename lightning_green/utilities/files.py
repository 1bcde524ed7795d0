"""The cache directory, and atomic writes: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CACHE_VARIABLE = "LIGHTNING_GREEN_CACHE_DIR"


def cache_directory() -> Path:
    """Return ``LIGHTNING_GREEN_CACHE_DIR`` or, if that is not set, ``lightning-green`` in the user's cache.

    A user without a home directory, as in some containers, has a cache in the directory of temporary files.
    """
    configured = os.environ.get(CACHE_VARIABLE)
    try:
        if configured:
            return Path(configured).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lightning-green"
    except RuntimeError:  # `~` is unknown
        return Path(tempfile.gettempdir()) / f"lightning-green-{os.geteuid()}"


@contextmanager
def atomic_file(
    path: Path, mode: str = "wb", *, durable: bool = True, permissions: int = 0o644, single_writer: bool = False
) -> Iterator[IO[Any]]:
    r"""Open a temporary file next to ``path`` that replaces it when the block ends without an exception.

    A kill, an exception or a full disk leaves the old content of ``path`` unchanged.

    Args:
        path: The file to replace.
        mode: ``"w"`` for text (UTF-8), ``"wb"`` for bytes.
        durable: Whether the new content survives a power failure once the block has ended.
        permissions: Permission bits of a new file.
        single_writer: Whether no other process or thread writes this path at the same time. The temporary file then
            has a fixed name, so that the next write overwrites the file of a killed process.

    Raises:
        OSError: If the file cannot be written.

    Examples:
        ```python
        with atomic_file(Path("values.csv"), "w") as file:
            file.write("time,value\n")
        ```

    """
    writer = "tmp" if single_writer else f"{os.getpid()}.{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.{writer}")
    encoding = None if "b" in mode else "utf-8"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, permissions)
        with open(descriptor, mode, encoding=encoding) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # a partial file would fill the disk
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


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
