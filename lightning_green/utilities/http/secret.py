"""Credentials that cannot be printed by accident."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lightning_green.utilities.http.errors import RefusedError


class Secret:
    """A string that shows itself to nobody but :meth:`reveal`: not in a repr, a format string or a pickle."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string, to put it into a request's header."""
        return self._value

    def digest(self) -> str:
        """Return a short digest that tells two secrets apart and gives neither away."""
        return hashlib.sha256(b"lightning-green" + self._value.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("A secret is not pickled; the copy reads it from the environment or the file again.")


def read_secret(variable: str, file: str | None = None) -> Secret:
    """Return the secret in ``file``, or else in the environment.

    Args:
        variable: Name of the environment variable.
        file: Path of a file that holds the secret and nothing else; None for the environment.

    Raises:
        RefusedError: If there is none; a source without its credential degrades like one with a wrong one.

    """
    if file is not None:
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RefusedError(
                f"the file with its credential, {file}, cannot be read ({type(error).__name__})"
            ) from None
        if not text:
            raise RefusedError(f"the file with its credential, {file}, is empty")
    else:
        text = os.environ.get(variable, "").strip()
        if not text:
            raise RefusedError(f"it needs a credential: set the environment variable {variable}")
    if not text.isascii() or not text.isprintable():
        raise RefusedError(f"its credential ({file or variable}) holds characters that no header may carry")
    return Secret(text)
