"""A private key of this user, which marks records that a process of this user has written."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from lightning_green.utilities.files import cache_directory
from lightning_green.utilities.trusted_files import make_private, read_own

_NAME = "key"
_DIGITS = 64


def keyed_hash(purpose: str, text: str) -> str | None:
    """Return a hash of a text that only processes of this user can compute; None if the key cannot be stored.

    The key is created in the cache directory when it is first needed. Without the same key, for example after the cache
    was deleted, an earlier hash is not recognized.

    Args:
        purpose: What the hash is for; hashes of one purpose are no hashes of another.
        text: The text.

    """
    key = _load_key()
    return None if key is None else hmac.new(key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def is_keyed_hash(given: object, purpose: str, text: str) -> bool:
    """Return whether a value from a record is the ``keyed_hash`` of a text."""
    own = keyed_hash(purpose, text)
    return own is not None and isinstance(given, str) and given.isascii() and hmac.compare_digest(given, own)


def _load_key() -> bytes | None:
    try:
        path = cache_directory() / _NAME
        with suppress(FileNotFoundError):
            return _read(path)
        _create(path)
        return _read(path)
    except (OSError, RuntimeError, ValueError):  # RuntimeError: there is no home directory
        return None


def _read(path: Path) -> bytes:
    text = read_own(path, _DIGITS)
    if path.lstat().st_mode & 0o077 or len(text) != _DIGITS:
        raise ValueError(f"{path} is not a private key")
    return bytes.fromhex(text.decode("ascii"))


def _create(path: Path) -> None:
    """Write a new key, unless another process does so first."""
    make_private(path.parent)
    temporary = path.with_name(f".{_NAME}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_DIGITS // 2))
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
