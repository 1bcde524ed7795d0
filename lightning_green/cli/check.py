"""The command ``lightning-green check``."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lightning_green.check import Check, CheckFailedError, CheckResult, Verdict
from lightning_green.cli.messages import fail, print_line
from lightning_green.cli.signals import ended_by_signals
from lightning_green.run.pause_rule import write_check

_CODES = {Verdict.EXACT: 0, Verdict.EPOCHS: 4}
_INEXACT = 1
_MAX_CHANGED = 5
_LOWEST_PRIORITY = 19


def check(
    command: Annotated[list[str] | None, typer.Argument(help="Training command, after `--`.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the short run.")] = 3,
    batches: Annotated[int, typer.Option(min=2, help="Training batches of an epoch of the short run.")] = 6,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one start of the script may take.")] = 600.0,
    keep: Annotated[Path | None, typer.Option(help="Keep traces, outputs and logs in this directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    background: Annotated[bool, typer.Option("--background", hidden=True)] = False,
) -> None:
    """Find out whether a training script resumes exactly, before a long training depends on it.

    The script runs in a copy of the working directory, with a few batches of a few epochs: once without a stop, and
    once stopped, killed and resumed. Samples, random numbers, losses, settings, weights and metrics are compared.
    `lightning-green run` pauses the same command only where it is exact.

    Exit codes: 0 exact everywhere; 1 not exact, not saved or not determined; 2 wrong usage, or the script fails;
    4 exact between epochs only.
    """
    if not command:
        fail("The command is missing. Add it after `--`, for example: lightning-green check -- python train.py")
    with ended_by_signals(background):
        if background:
            _run_beside_training()
        result = _run_with_progress(command, epochs, batches, timeout, keep)
    try:
        write_check(command, result.pause_rule, result.files)
    except OSError as error:
        print_line(f"The result could not be recorded for `lightning-green run` ({error.strerror}).")
    typer.echo(json.dumps(result.to_json()) if as_json else "\n".join(describe(result)))
    raise typer.Exit(_CODES.get(result.verdict, _INEXACT))


def _run_with_progress(command: list[str], epochs: int, batches: int, timeout: float, keep: Path | None) -> CheckResult:
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("check", total=None)
        try:
            return Check(command, epochs, batches, timeout, keep, lambda line: bar.update(task, description=line)).run()
        except CheckFailedError as error:
            bar.stop()
            fail(str(error))


def _run_beside_training() -> None:
    """Leave the cores to the training that has started this check, and end with it, which closes standard input."""
    os.nice(_LOWEST_PRIORITY)

    def wait_for_training() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait_for_training, daemon=True).start()


def describe(result: CheckResult) -> list[str]:
    """Return the result of a check in lines, for people."""
    verdicts = {
        Verdict.EXACT: "Exact: an interrupted run ends like an uninterrupted one, wherever it is stopped.",
        Verdict.EPOCHS: "Exact between epochs only. `lightning-green run` pauses this command there only.",
        Verdict.INEXACT: "Not exact. `lightning-green run` does not pause this command.",
        Verdict.NOT_SAVED: "Not paused: no training state can be saved.",
        Verdict.UNDETERMINED: "Not determined.",
    }
    lines = [verdicts[result.verdict]]
    if result.reason:
        lines.append(f"  Reason   {result.reason}.")
    changed = () if result.difference is None else result.difference.attributes
    lines += [f"  Changed  {path}: {one}, then {two}" for path, one, two in changed[:_MAX_CHANGED]]
    if result.remedy:
        lines.append(f"  Remedy   {result.remedy}.")
    fits = "1 fit" if result.fits == 1 else f"{result.fits} fits"
    batches = f"{result.batches} batches each" if result.batches else "a few batches each"
    lines.append(f"  Checked  {fits}, the first of {result.epochs} epochs of {batches}; {result.starts} starts")
    if result.trainings > 1:
        recorded = "" if result.pause_rule else ", so nothing is recorded for `lightning-green run`"
        lines.append(
            f"  Others   the command starts {result.trainings} trainings; only the first was checked{recorded}"
        )
    lines += [f"  Stop     {stop}" for stop in result.stops]
    lines += [f"  Missed   {stop}" for stop in result.missed]
    if result.linked:
        more = f" and {len(result.linked) - _MAX_CHANGED} more" if len(result.linked) > _MAX_CHANGED else ""
        lines.append(f"  Linked   not copied, so changes remain: {', '.join(result.linked[:_MAX_CHANGED])}{more}")
    if result.left_out:
        lines.append(f"  Left out weights that are too large: {', '.join(result.left_out[:_MAX_CHANGED])}")
    if result.loggers:
        lines.append(f"  Loggers  logged as usual, because they cannot be redirected: {', '.join(result.loggers)}")
    if result.ignored:
        lines.append(f"  Ignored  differs in every run: {', '.join(result.ignored)}")
    return lines
