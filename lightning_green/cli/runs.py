"""The command ``lightning-green runs``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lightning_green.cli.console import make_console, one_line, show
from lightning_green.cli.messages import fail, print_line
from lightning_green.cli.run_table import runs_view
from lightning_green.report.run_cache import SummaryCache
from lightning_green.report.run_list import list_runs

DEFAULT_FOLDERS = ("lightning_green_runs", "lightning_green")
"""Directories of runs in the current directory: with the supervisor, and without it."""


def runs(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Directory. Default: lightning_green_runs/ and lightning_green/."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    all_ledgers: Annotated[
        bool,
        typer.Option("--no-cache", help="Also read the ledgers of runs that have not changed since the last list."),
    ] = False,
) -> None:
    """List the runs in a directory, the newest first.

    Directories below it are included, four levels deep. The saving is relative to the same run without waiting; a dash
    is an unknown value. Directories that cannot be read are listed with the reason.

    Exit codes: 0 success, also without a run; 2 wrong usage.
    """
    if folder is not None and not folder.is_dir():
        fail(f"{folder} is not a directory. Pass the directory of the runs, such as lightning_green_runs/.")
    base = Path.cwd() if folder is None else folder.absolute()
    folders = [base / name for name in DEFAULT_FOLDERS if (base / name).is_dir()] if folder is None else [base]
    cache = None if all_ledgers else SummaryCache()
    found = [run for one in folders for run in list_runs(one, cache)]
    found.sort(key=lambda run: (-run.changed, run.run_dir))
    if as_json:
        typer.echo(json.dumps({"folders": [str(one) for one in folders], "runs": [run.to_json() for run in found]}))
        return
    if not found:
        where = "lightning_green_runs/ and lightning_green/" if folder is None else one_line(folder)
        print_line(f"There is no run in {where}. Start one: lightning-green run -- python train.py")
        return
    console = make_console()
    show(console, runs_view(found, base, console))
