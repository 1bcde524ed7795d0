"""Where the recorded carbon intensities are, for the benchmarks that need them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def parse_arguments(description: str | None, pattern: str) -> tuple[list[Path], bool]:
    """Return the sorted files of the data that match ``pattern``, and whether to print JSON; exit with 2 without data.

    Args:
        description: Docstring of the benchmark.
        pattern: Pattern of the files in ``--data DIR`` or its directory ``carbon``.

    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LIGHTNING_GREEN_DATA"))
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    arguments = parser.parse_args()
    folder = None if arguments.data is None else Path(arguments.data)
    if folder is not None and (folder / "carbon").is_dir():
        folder = folder / "carbon"
    paths = [] if folder is None else sorted(folder.glob(pattern))
    if not paths:
        print("Recorded carbon intensities are needed: --data DIR or LIGHTNING_GREEN_DATA.", file=sys.stderr)
        sys.exit(2)
    return paths, arguments.json
