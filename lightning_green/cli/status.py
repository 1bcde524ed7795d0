"""The command ``lightning-green status``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lightning_green.cli.console import make_console, show
from lightning_green.cli.messages import fail
from lightning_green.report.run_list import fast_reading, is_run, runs_of_command
from lightning_green.report.run_status import RunStatus, read_run_status
from lightning_green.report.status import describe_run
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.text import printable

INTERRUPTED = 130
_MIN_SECONDS = 0.1
_LABEL = 10
"""Width of the labels of the status."""
_VOLATILE = ("now", "elapsed_hours", "waited_hours")
"""Values that change while a run waits."""


def status(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Run directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Update until all runs are finished.")] = False,
    interval: Annotated[str, typer.Option(help="Time between two updates.")] = "5s",
) -> None:
    """Show the state of a run, its next start and its totals.

    With --watch, a terminal shows the latest status, and a pipe gets a new block for each change, except of the time.

    Exit codes: 0 success; 2 wrong usage, or the directory cannot be read; 130 stopped by Ctrl-C with --watch.
    """
    if not is_run(run_dir):
        fail(
            f"{run_dir} is not a run directory: it has no run.json. By default, runs are in lightning_green_runs/, "
            "and in lightning_green/ without the supervisor. To list them: lightning-green runs"
        )
    if as_json and watch:
        fail("`--json` and `--watch` cannot be combined, because --json prints one object. Drop one of them.")
    try:
        seconds = parse_duration(interval, "--interval").total_seconds()
    except ValueError as error:
        fail(str(error))
    if seconds < _MIN_SECONDS:
        fail(f"`--interval` should be at least {_MIN_SECONDS} s, got {interval!r}.")
    home = run_dir.absolute()
    if watch:
        try:
            watch_runs(lambda earlier: _read(home, earlier), seconds)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        return
    found = _read(home)
    if as_json:
        typer.echo(json.dumps({"runs": [run.to_json() for run in found]}))
    else:
        console = make_console()
        show(console, _view(found) if console.is_terminal else Text(_text(found)))


def _read(home: Path, earlier: Sequence[RunStatus] = ()) -> list[RunStatus]:
    """Return the status of each run of a command; exit with a message if one cannot be read."""
    known = {run.path: run for run in earlier}
    try:
        with fast_reading():
            return [read_run_status(path, code, known.get(path)) for path, code in runs_of_command(home)]
    except (RuntimeError, ValueError) as error:  # another version, or damaged
        fail(str(error))
    except OSError as error:
        fail(f"The run directory {home} cannot be read ({error.strerror}: {error.filename}).")


def watch_runs(read: Callable[[Sequence[RunStatus]], list[RunStatus]], seconds: float) -> None:
    """Show the status of runs until all of them are finished.

    Args:
        read: Returns the status, given the previous one.
        seconds: Time between two updates.

    """
    console = make_console()
    found: list[RunStatus] = []
    shown: Any = None
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with nullcontext() if live is None else live:
        while True:
            found = read(found)
            content = _lasting(found)
            if live is not None:
                live.update(_view(found), refresh=True)
            elif content != shown:
                show(console, Text(("" if shown is None else "\n") + _text(found)))
                console.file.flush()
            shown = content
            if all(run.state.is_done for run in found):
                return
            time.sleep(seconds)


def _view(found: Sequence[RunStatus]) -> RenderableType:
    """Return the status for a terminal: long lines are indented below their label."""
    table = Table.grid()
    table.add_column(width=_LABEL)
    table.add_column(overflow="fold")
    for line in _text(found).splitlines():
        table.add_row(Text(line[:_LABEL], "bold"), Text(line[_LABEL:]))
    return table


def _lasting(found: Sequence[RunStatus]) -> list[dict[str, Any]]:
    return [{key: value for key, value in run.to_json().items() if key not in _VOLATILE} for run in found]


def _text(found: Sequence[RunStatus]) -> str:
    return printable("\n\n".join(map(describe_run, found)))
