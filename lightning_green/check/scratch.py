"""A copy of the working directory in which a check runs a script, so that what the script writes does not remain."""

from __future__ import annotations

import collections
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lightning_green.check.result import CheckFailedError

_MAX_ENTRIES, _MAX_TOTAL = 2000, 20_000
_MAX_BYTES = 2_000_000_000
_SKIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "lightning_green_runs"}
_LINKED = {".git", ".hg", ".venv", "venv", "env", "node_modules", ".tox", "site-packages"}
# Weights are no links, because a script may replace them by those of the short run.
_WEIGHTS = {".pt", ".pth", ".ckpt", ".safetensors", ".onnx"}


class Mirror:
    """A copy of a working directory.

    Files are copied, smaller ones first, up to 2 GB in total or a quarter of the free space. Weights that exceed the
    limit are left out. Other files that exceed it, virtual environments, directories of more than 2,000 entries, such
    as data, and what exceeds 20,000 entries are symbolic links: a script that changes them changes the originals. So
    are the files and directories next to the working directory, for paths such as ``../data``.

    Args:
        source: The working directory.
        target: Directory to create.

    Attributes:
        path: The copy of the working directory.
        linked: Paths of the links in the working directory, relative to it.
        left_out: Paths of the weights that exceed the limit, relative to it.

    Raises:
        CheckFailedError: If the directory cannot be copied, for example to a full disk.

    """

    def __init__(self, source: Path, target: Path) -> None:
        self.path, self.linked, self.left_out = target / source.name, list[str](), list[str]()
        self._source = source
        try:
            target.mkdir(parents=True)
            for sibling in _entries(source.parent)[:_MAX_ENTRIES]:
                if sibling.name != source.name:
                    (target / sibling.name).symlink_to(sibling.path)
            self._fill(target)
        except OSError as error:
            raise CheckFailedError(f"The working directory cannot be copied to {target}: {error}.") from error

    def copy(self, target: Path) -> Path:
        """Copy this copy for one run.

        Args:
            target: Directory to create.

        Returns:
            The copy of the working directory.

        Raises:
            CheckFailedError: If it cannot be copied.

        """
        try:
            shutil.copytree(self.path.parent, target, symlinks=True)
        except OSError as error:
            raise CheckFailedError(f"The working directory cannot be copied to {target}: {error}.") from error
        return target / self.path.name

    def _fill(self, target: Path) -> None:
        waiting, total = collections.deque([(self._source, self.path)]), 0
        files: list[tuple[int, Path, Path]] = []
        while waiting:
            directory, copy = waiting.popleft()
            entries = _entries(directory)
            if directory != self._source and (len(entries) > _MAX_ENTRIES or total + len(entries) > _MAX_TOTAL):
                self._link(directory, copy)
                continue
            total += len(entries)
            copy.mkdir(parents=True)
            for entry in entries:
                path = Path(entry.path)
                if entry.name in _SKIPPED or path == target or path in target.parents:
                    continue
                if entry.is_dir(follow_symlinks=False) and entry.name not in _LINKED:
                    waiting.append((path, copy / entry.name))
                elif entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # removed in the meantime
                        files.append((entry.stat().st_size, path, copy / entry.name))
                elif path.exists():  # not a broken link
                    self._link(path, copy / entry.name)
        self._copy(sorted(files))

    def _copy(self, files: Iterable[tuple[int, Path, Path]]) -> None:
        copied, limit = 0, min(_MAX_BYTES, shutil.disk_usage(self.path).free // 4)
        for size, path, copy in files:
            if copied + size <= limit:
                copied += size
                with suppress(FileNotFoundError, PermissionError):  # removed in the meantime, or not readable
                    shutil.copy2(path, copy)
            elif path.suffix in _WEIGHTS:
                self.left_out.append(str(path.relative_to(self._source)))
            else:
                self._link(path, copy)

    def _link(self, path: Path, copy: Path) -> None:
        copy.symlink_to(path.resolve())
        self.linked.append(str(path.relative_to(self._source)))


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # not readable for this user
        return []
