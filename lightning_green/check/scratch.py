"""A copy of the working directory in which a check runs a script, so that what the script writes does not remain."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_LARGE_BYTES = 1_000_000
_MAX_ENTRIES = 2000
_SKIPPED = {".git", ".hg", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "lightning_green_runs"}
_LINKED = {".venv", "venv", "env", "node_modules", ".tox", "site-packages"}


def mirror(source: Path, target: Path) -> Path:
    """Copy a working directory, and return the copy.

    Small files are copied. Large ones, virtual environments and directories of many files, such as data, are symbolic
    links: a script that changes them changes the originals.

    Args:
        source: The working directory.
        target: Directory to create.

    """
    target.mkdir(parents=True)
    with os.scandir(source) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        if entry.name in _SKIPPED or path == target or path in target.parents:
            continue
        copy = target / entry.name
        if entry.is_dir(follow_symlinks=False) and entry.name not in _LINKED and _is_small(path):
            mirror(path, copy)
        elif entry.is_file(follow_symlinks=False) and entry.stat().st_size <= _LARGE_BYTES:
            shutil.copy2(path, copy)
        elif not entry.is_symlink() or path.exists():
            copy.symlink_to(path.resolve() if entry.is_symlink() else path.absolute())
    return target


def _is_small(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return sum(1 for _ in entries) <= _MAX_ENTRIES
    except OSError:
        return False
