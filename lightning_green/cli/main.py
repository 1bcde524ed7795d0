"""The command ``lightning-green``."""

from __future__ import annotations

from typing import Annotated

import typer

from lightning_green.cli.lazy import LazyCommand, LazyGroup
from lightning_green.utilities.version import package_version

COMMANDS = (
    LazyCommand(
        "run",
        "lightning_green.cli.run:run",
        "Start a command, and start it again after each planned exit or crash until it has finished.",
    ),
    LazyCommand("runs", "lightning_green.cli.runs:runs", "List the runs in a directory, the newest first."),
    LazyCommand(
        "status", "lightning_green.cli.status:status", "Show the state of a run, its next start and its totals."
    ),
    LazyCommand(
        "report", "lightning_green.cli.report:report", "Write one page about a run, or a comparison of several."
    ),
    LazyCommand(
        "budget",
        "lightning_green.cli.budget:budget",
        "Show or set the limits of a budget that runs share, and what each of them has used.",
    ),
    LazyCommand(
        "check",
        "lightning_green.cli.check:check",
        "Find out whether a training script resumes exactly, before a long training depends on it.",
    ),
    LazyCommand(
        "doctor",
        "lightning_green.cli.doctor:doctor",
        "Report what this machine can measure, throttle and reach, with a remedy for each limitation.",
    ),
    LazyCommand(
        "meters",
        "lightning_green.cli.meters:meters",
        "Print what would be measured on this machine, how well, and what makes it better.",
    ),
    LazyCommand(
        "grid",
        "lightning_green.cli.grid:grid_app",
        "Show, check and record a carbon-intensity source, and plan with it.",
    ),
    LazyCommand(
        "backtest",
        "lightning_green.cli.backtest:backtest",
        "Replay a recorded year and compare the emissions of scheduling policies with those of running at once.",
    ),
    LazyCommand(
        "compress",
        "lightning_green.cli.compress:compress",
        "Prune, fine-tune with the original as teacher, train in fake quantization, export to ONNX and report.",
    ),
    LazyCommand(
        "kubernetes",
        "lightning_green.cli.kubernetes:kubernetes_app",
        "Print the manifests of a training in Kubernetes, and start suspended Jobs again.",
    ),
)
"""All commands, in the order of the help. Each is imported when it is called."""


class Commands(LazyGroup):
    """The commands of ``lightning-green``."""

    lazy = COMMANDS


app = typer.Typer(
    name="lightning-green",
    cls=Commands,
    help="Carbon-aware training for PyTorch Lightning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"lightning-green {package_version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Carbon-aware training for PyTorch Lightning."""
