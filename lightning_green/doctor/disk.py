"""The run directory: permission and free space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lightning_green.doctor.finding import Finding

SECTION = "Run directory"
_OTHER = "choose another directory: lightning-green run --run-dir DIR -- python train.py"
_LITTLE_BYTES, _TOO_LITTLE_BYTES = 5 * 2**30, 2**28


def examine_disk(run_dir: Path) -> Iterator[Finding]:
    """Yield whether a run directory can be written, and the free space. Writes nothing.

    Args:
        run_dir: The directory, which may not exist yet.

    """
    path = run_dir.absolute()
    existing = next((one for one in (path, *path.parents) if os.path.lexists(one)), Path("/"))
    if not existing.is_dir():
        yield Finding(SECTION, "permission", "no", f"{existing} is not a directory", _OTHER, is_required=True)
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        text = f"no permission to write in {existing}"
        yield Finding(SECTION, "permission", "no", text, f"chmod u+wx {existing}, or {_OTHER}", is_required=True)
    else:
        yield Finding(SECTION, "permission", "ok", f"{path} can be written", is_required=True)
    free = shutil.disk_usage(existing).free
    text = f"{free / 2**30:.1f} GiB are free; the two newest checkpoints and the ledger are kept"
    if free < _TOO_LITTLE_BYTES:
        yield Finding(SECTION, "space", "no", text, f"free disk space, or {_OTHER}")
    elif free < _LITTLE_BYTES:
        yield Finding(SECTION, "space", "limited", text, f"free disk space, or {_OTHER}")
    else:
        yield Finding(SECTION, "space", "ok", text)
