"""The build of PyTorch, without importing it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"]([0-9.]+)['\"]", re.MULTILINE)


def cuda_of_torch() -> str | None:
    """Return the CUDA version that the installed PyTorch was built with; None without CUDA or without PyTorch."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = _CUDA.search(text)
    return None if match is None else match[1]
