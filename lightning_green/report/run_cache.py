"""Summaries of runs that have ended, so that a list of runs does not read their ledgers again."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_green.ledger.ledger import ledger_files
from lightning_green.supervisor.command import FILE as COMMAND_FILE
from lightning_green.utilities.files import cache_directory, write_json
from lightning_green.utilities.reading import UnreadableFileError, read_json
from lightning_green.utilities.trusted_files import make_private

_VERSION = 2
"""Bump when a code change alters the summary of the same ledgers."""
_MOST_RUNS = 5000

Stamp = list[list[Any]]
"""Name, size and time of the last change of the files of a run."""


def stamp_of(path: Path) -> Stamp:
    """Return what identifies the content of a run directory without reading its ledgers."""
    found: Stamp = []
    for file in [*ledger_files(path), path / "run.json", path / COMMAND_FILE]:
        with suppress(FileNotFoundError):
            at = file.lstat()
            found.append([file.name, at.st_size, at.st_mtime_ns])
    return found


class SummaryCache:
    """Summaries by run directory, in one file of the cache directory of this user.

    Args:
        file: The file; None for ``runs.json`` in ``LIGHTNING_GREEN_CACHE_DIR``.

    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = cache_directory() / "runs.json" if file is None else file
        self._runs: dict[str, Any] = {}
        self._changed = False
        with suppress(OSError, UnreadableFileError):
            record = read_json(self.file, own=True)
            if isinstance(record, dict) and record.get("version") == _VERSION and isinstance(record.get("runs"), dict):
                self._runs = record["runs"]

    def load(self, path: Path, stamp: Stamp) -> dict[str, Any] | None:
        """Return the summary of a run as JSON; None if it is not known, or the run has changed since."""
        known = self._runs.get(str(path))
        if isinstance(known, dict) and known.get("stamp") == stamp and isinstance(known.get("summary"), dict):
            return dict(known["summary"])
        return None

    def keep(self, path: Path, stamp: Stamp, summary: dict[str, Any]) -> None:
        """Keep the summary of a run."""
        self._runs.pop(str(path), None)
        self._runs[str(path)] = {"stamp": stamp, "summary": summary}
        self._changed = True

    def save(self) -> None:
        """Write the file if it has changed. A failure has no effect: the ledgers are read again."""
        if not self._changed:
            return
        newest = dict(list(self._runs.items())[-_MOST_RUNS:])
        with suppress(OSError, ValueError):
            json.dumps(newest, allow_nan=False)
            make_private(self.file.parent)
            write_json(self.file, {"version": _VERSION, "runs": newest}, private=True, durable=False)
            self._changed = False
