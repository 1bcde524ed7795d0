"""The command ``lightning-green``."""

from __future__ import annotations

import typer

from lightning_green.cli.backtest import backtest
from lightning_green.cli.check import check
from lightning_green.cli.compress import compress
from lightning_green.cli.grid import grid_app
from lightning_green.cli.meters import meters
from lightning_green.cli.report import report
from lightning_green.cli.run import run, status

app = typer.Typer(
    name="lightning-green",
    help="Carbon-aware training for PyTorch Lightning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(status)
app.command()(report)
app.command()(check)
app.command()(meters)
app.command()(backtest)
app.command()(compress)
app.add_typer(grid_app)
