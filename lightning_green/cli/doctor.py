"""The command ``lightning-green doctor``."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lightning_green.cli.console import cell, make_console, show
from lightning_green.cli.grid import build_signal
from lightning_green.cli.messages import fail
from lightning_green.doctor import Diagnosis, Finding, examine
from lightning_green.energy.registry import build_meter

LIMITED = 1
_MIN_COLUMNS = 90
"""Width from which the names have a column of their own."""
_STYLES = {"ok": "green", "limited": "yellow", "no": "red"}


def doctor(
    grid: Annotated[
        str | None,
        typer.Option(help="The `grid` argument of a callback. Default: all services of LIGHTNING_GREEN_ZONE."),
    ] = None,
    meter: Annotated[str, typer.Option(help="The `meter` argument of a callback.")] = "auto",
    run_dir: Annotated[Path, typer.Option(help="Directory to which a run would be written.")] = Path(
        "lightning_green_runs"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Report what this machine can measure, throttle and reach, with a remedy for each limitation.

    Each line is ok, limited (works in part, or with estimates) or no. No setting is changed and no file is written.
    Without a network, the sources of carbon intensity are given up after 5 seconds.

    Exit codes: 0 energy and carbon intensity are available and the run directory can be written; 1 one of them is not;
    2 wrong usage.
    """
    signal = None if grid is None else build_signal(grid, None)
    try:
        built = build_meter(meter)
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        fail(f"`--meter {meter}` cannot be used: {error}")
    found = examine(built, signal, run_dir)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        console = make_console()
        show(console, view(found, names_apart=console.width >= _MIN_COLUMNS))
    if not found.works:
        raise typer.Exit(LIMITED)


def view(found: Diagnosis, names_apart: bool = True) -> RenderableType:
    """Return a diagnosis for a console, in one table with a title for each section.

    Args:
        found: The diagnosis.
        names_apart: Whether the names of the findings have a column of their own, for a wide console.

    """
    parts: list[RenderableType] = []
    width = max(len(one.name) for one in found.findings) if names_apart else None
    for section, findings in groupby(found.findings, key=lambda one: one.section):
        parts += [cell(section, "bold"), Padding(_table(list(findings), width), (0, 0, 0, 2))]
    missing = ", ".join(f"{one.section.lower()}: {one.name}" for one in found.missing)
    summary = f"Missing: {missing}." if missing else "Energy and carbon intensity are available."
    return Group(*parts, Text(), cell(summary, "bold red" if missing else "bold green"))


def _table(findings: list[Finding], width: int | None) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(width=7)
    if width is not None:
        table.add_column(width=width)
    table.add_column(overflow="fold")
    for one in findings:
        level, name, text = cell(one.level, _STYLES[one.level]), cell(one.name), cell(one.text)
        table.add_row(level, *([Text.assemble(name, ": ", text)] if width is None else [name, text]))
        if one.remedy is not None:
            table.add_row("", *([] if width is None else [""]), Text.assemble(("remedy: ", "dim"), cell(one.remedy)))
    return table
