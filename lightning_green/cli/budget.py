"""The command ``lightning-green budget``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from lightning_green.budget.directory import BudgetDirectory, BudgetError
from lightning_green.budget.limits import Limits
from lightning_green.budget.record import RunRecord
from lightning_green.budget.status import BudgetStatus
from lightning_green.budget.usage import Usage
from lightning_green.cli.console import cell, make_console, one_line, show
from lightning_green.cli.messages import fail, print_line
from lightning_green.grid.prices import build_prices
from lightning_green.planning.prices import PriceSeries
from lightning_green.utilities.quantities import format_energy, format_grams, format_money, format_percent

USED = 1
_UNITS = {"kwh": ("Energy", format_energy), "gco2e": ("Emissions", format_grams), "cost": ("Cost", format_money)}


def budget(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of EnergyBudget(directory=...).")],
    kwh: Annotated[float | None, typer.Option(help="Set the limit of the energy in kWh.")] = None,
    gco2e: Annotated[float | None, typer.Option(help="Set the limit of the emissions in gCO2e.")] = None,
    cost: Annotated[float | None, typer.Option(help="Set the limit of the electricity cost.")] = None,
    price: Annotated[
        str | None,
        typer.Option(help="Price per kWh, or a CSV file with prices: for the cost of what killed runs did not record."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show or set the limits of a budget that runs share, and what each of them has used.

    With --kwh, --gco2e or --cost, limits are set first; the directory is created if it does not exist. Running trials
    use new limits at their next check. The energy of killed runs is read from their ledgers.

    Exit codes: 0 the budget is not used; 1 it is used; 2 wrong usage, or the directory cannot be read or written.
    """
    try:
        limits = Limits(kwh, gco2e, cost)
        prices = None if price is None else build_prices(price, "--price")
    except (ValueError, OSError) as error:
        fail(str(error))
    shared = BudgetDirectory(directory)
    try:
        if limits:
            shared.set_limits(limits)
        elif not shared.exists():
            name = one_line(directory)
            fail(f"{name} has no budget. To create one: lightning-green budget {name} --kwh 20")
        records, status = _read(shared, prices)
    except BudgetError as error:
        fail(str(error))
    except OSError as error:
        fail(f"The budget in {shared.path} cannot be used ({error.strerror}: {error.filename}).")
    if as_json:
        runs = [
            {**one.usage.to_json(), "run_id": one.run_id, "run_dir": one.run_dir, "state": one.state_name}
            for one in records
        ]
        typer.echo(json.dumps({**status.to_json(), "each": runs}))
    else:
        console = make_console()
        show(console, _table(records, status))
        for line in status.notes():
            print_line(line)
    raise typer.Exit(USED if status.is_used else 0)


def _read(shared: BudgetDirectory, prices: PriceSeries | None) -> tuple[list[RunRecord], BudgetStatus]:
    records = list(shared.records(prices))
    limits = shared.limits()
    return records, replace(limits, usage=sum((one.usage for one in records), Usage()), runs=len(records))


def _table(records: Sequence[RunRecord], status: BudgetStatus) -> Table:
    """Return a row for each run, the total, the limits, and the share that is used."""
    units = [unit for unit in _UNITS if unit == "kwh" or unit in status.limits.to_json()]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Run")
    table.add_column("State")
    for unit in units:
        table.add_column(_UNITS[unit][0], justify="right")
    table.add_column("Quality")

    def row(name: object, state: str, values: dict[str, float], quality: str = "") -> None:
        texts = [_UNITS[unit][1](values[unit]) if unit in values else "-" for unit in units]
        table.add_row(cell(name), cell(state), *map(cell, texts), cell(quality))

    for one in records:
        row(Path(one.run_dir).name or one.run_id, one.state_name, _values(one.usage, status), _quality(one.usage))
    row(
        "Total",
        f"{status.runs} {'run' if status.runs == 1 else 'runs'}",
        _values(status.usage, status),
        _quality(status.usage),
    )
    limits = status.limits.to_json()
    row("Limit", "", limits)
    shares = {unit: status.used[unit] / limits[unit] for unit in limits}
    texts = [format_percent(100 * shares[unit]) if unit in shares else "-" for unit in units]
    table.add_row(cell("Used"), cell("used" if status.is_used else ""), *map(cell, texts), cell(""))
    return table


def _values(usage: Usage, status: BudgetStatus) -> dict[str, Any]:
    return {"kwh": usage.kwh, "gco2e": usage.gco2e.get(status.kind or "", 0.0), "cost": usage.cost}


def _quality(usage: Usage) -> str:
    if not usage.kwh:
        return ""
    return "measured" if usage.is_measured else "modeled"
