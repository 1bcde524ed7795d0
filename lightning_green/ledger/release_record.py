"""The record of what starts a run again while no supervisor is running, such as a requeued job."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lightning_green.ledger.run_directory import RUNS
from lightning_green.utilities.files import write_json
from lightning_green.utilities.reading import UnreadableFileError, read_json

FILE = "released.json"
_MAX_BYTES, _MAX_LENGTH = 4096, 80


def write_release(home: Path, by: str | None) -> None:
    """Record what starts a run again. A failure has no effect: only messages depend on it.

    Args:
        home: Run directory of the command.
        by: Name for messages, such as ``"SLURM job 7"``; None removes the record.

    """
    with suppress(OSError):
        if by is None:
            (home / FILE).unlink(missing_ok=True)
        else:
            write_json(home / FILE, {"by": by})


def read_release(path: Path) -> str | None:
    """Return what starts a run again, or None.

    Args:
        path: Run directory of the command, or of one of its further runs.

    """
    for home in [path, *([path.parent.parent] if path.parent.name == RUNS else [])]:
        with suppress(OSError, UnreadableFileError):
            record = read_json(home / FILE, _MAX_BYTES)
            by = record.get("by") if isinstance(record, dict) else None
            if isinstance(by, str) and by:
                return "".join(one if one.isprintable() else "?" for one in by[:_MAX_LENGTH])
    return None
