"""Credentials that cannot be printed or pickled by accident."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lightning_green.utilities.http.errors import RefusedError


class Secret:
    """A string that only ``reveal`` returns. Its repr hides it, and pickling it raises.

    Args:
        value: The string.

    """

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string, for the header of a request."""
        return self._value

    def digest(self) -> str:
        """Return a short digest that identifies the secret without revealing it."""
        return hashlib.sha256(b"lightning-green" + self._value.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("A secret cannot be pickled. Read it again from the environment or the file.")


def read_secret(variable: str, file: str | None = None) -> Secret:
    """Return the secret in ``file``, or, without a file, in the environment.

    Args:
        variable: Name of the environment variable.
        file: Path of a file that contains only the secret; None for the environment.

    Raises:
        RefusedError: If it is missing, unreadable or cannot be sent in a header.

    """
    if file is not None:
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RefusedError(f"the credential file {file} cannot be read ({type(error).__name__})") from None
        if not text:
            raise RefusedError(f"the credential file {file} is empty")
    else:
        text = os.environ.get(variable, "").strip()
        if not text:
            raise RefusedError(f"the credential is missing: set the environment variable {variable}")
    if not text.isascii() or not text.isprintable():
        raise RefusedError(f"the credential in {file or variable} contains characters that are not allowed in a header")
    return Secret(text)
