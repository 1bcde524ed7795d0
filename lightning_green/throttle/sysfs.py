"""Reading and writing small files under ``/sys``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning_green.throttle.errors import ThrottleError


def read_text(path: Path) -> str:
    """Return the content of a small text file without the end of line.

    Raises:
        OSError: If the file cannot be read.

    """
    return path.read_text(encoding="ascii").strip()


def write_texts(texts: Mapping[str, str]) -> None:
    """Write the text of each file, given as ``{path: text}``.

    Raises:
        ThrottleError: If the process lacks the permission.
        OSError: If a file cannot be written for another reason.

    """
    for path, text in texts.items():
        try:
            Path(path).write_text(f"{text}\n", encoding="ascii")
        except PermissionError as error:  # noqa: PERF203  (a handful of files)
            raise ThrottleError(describe_refusal(path)) from error


def describe_refusal(path: str) -> str:
    """Return the message about a file that cannot be written."""
    return f"no permission to write {path}; run as root or ask an administrator to make the file writable"
