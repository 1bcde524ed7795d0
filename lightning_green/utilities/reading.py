"""Reading files that may contain anything: bounded in size and depth, and never waiting for a pipe."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

MAX_BYTES = 64 * 2**20
"""Size in bytes of the largest file that is read as a whole."""
MAX_DEPTH = 64
"""Depth of nested lists and objects in JSON. Copying and describing a value takes several stack frames per level."""
MAX_LINE_BYTES = 2**20
"""Size in bytes of the longest line that is read."""
_CHUNK = 2**18


class UnreadableFileError(ValueError):
    """A file is not a regular one, is too large, or does not contain what it should."""


def open_regular(path: Path, own: bool = False) -> IO[bytes]:
    """Open a regular file for reading. Pipes, devices, directories and symbolic links are refused.

    Args:
        path: The file.
        own: Whether the file has to belong to this user or to root, and only to be writable for that user.

    Raises:
        OSError: If it does not exist or cannot be opened.
        UnreadableFileError: If it is not a regular file, or is not this user's own.

    """
    try:
        # without O_NONBLOCK, opening a named pipe waits for its writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except ValueError as error:  # a NUL byte in the name
        raise UnreadableFileError(f"{str(path)!r} is not the name of a file: {error}") from None
    except OSError as error:
        if path.is_symlink():
            raise UnreadableFileError(f"{path} is a symbolic link, not a file") from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UnreadableFileError(f"{path} is not a regular file")
    if own and found.st_uid not in (os.geteuid(), 0):
        os.close(descriptor)
        raise UnreadableFileError(f"{path} belongs to another user")
    if own and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(descriptor)
        raise UnreadableFileError(f"{path} can be written by other users")
    return open(descriptor, "rb")


def read_bytes(path: Path, limit: int = MAX_BYTES, own: bool = False) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        limit: Size in bytes that it may have.
        own: Whether the file has to belong to this user or to root, and only to be writable for that user.

    Raises:
        OSError: If it does not exist or cannot be read.
        UnreadableFileError: If it is not a regular file, is larger than ``limit``, or is not this user's own.

    """
    with open_regular(path, own) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UnreadableFileError(f"{path} is larger than {limit} bytes")
    return data


def read_json(path: Path, limit: int = MAX_BYTES, own: bool = False) -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file.
        limit: Size in bytes that it may have.
        own: Whether the file has to belong to this user or to root, and only to be writable for that user.

    Raises:
        OSError: If it does not exist or cannot be read.
        UnreadableFileError: If it is not a regular file, is too large, or is not JSON.

    """
    try:
        return parse_json(read_bytes(path, limit, own))
    except UnreadableFileError:
        raise
    except ValueError as error:
        raise UnreadableFileError(f"{path} is not readable as JSON: {error}") from error


def parse_json(data: bytes) -> Any:
    """Return the value of JSON text.

    Raises:
        ValueError: If it is not JSON in UTF-8, or is nested more than 64 levels deep.

    Examples:
        >>> parse_json(b'{"a": [1, 2]}')
        {'a': [1, 2]}
        >>> parse_json(b"[" * 100_000)
        Traceback (most recent call last):
        ...
        ValueError: it is nested more than 64 levels deep

    """
    text = data.decode("utf-8")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [item for item in one.values() if isinstance(item, (dict, list))]
            elif isinstance(one, list):
                inner += [item for item in one if isinstance(item, (dict, list))]
        if not inner:
            return False
        level = inner
    return True


def read_lines(file: IO[bytes], limit: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """Yield the lines of a file with their line ends; of a line that is longer than ``limit``, only its first bytes.

    At most one line is in memory.
    """
    while line := file.readline(limit):
        yield line
        while line and not line.endswith(b"\n"):  # the rest of a long line, or the end of the file
            line = file.readline(_CHUNK)
