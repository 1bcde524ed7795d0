"""``lightning-green backtest``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast

import typer

from lightning_green.backtest.backtest import Backtest
from lightning_green.backtest.objectives import compare_objectives
from lightning_green.backtest.registry import build_policy
from lightning_green.backtest.results import OPTIMAL, RUN_NOW, ZoneResult, as_text, mean_of, policy_table, zone_table
from lightning_green.backtest.zone_archive import Scope, ZoneArchive, read_archive
from lightning_green.cli.messages import fail
from lightning_green.grid.prices import build_prices
from lightning_green.planning.job import HOLD_POWER, PAUSES, Level
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.validation import check_number


def backtest(
    actual: Annotated[
        list[Path], typer.Option(help="CSV of hourly intensities: datetime, carbon_intensity. One per zone.")
    ],
    forecast: Annotated[
        list[Path] | None,
        typer.Option(help="CSV of forecasts: issued_at, kind, h00, h01, ... One per --actual, in the same order."),
    ] = None,
    work_hours: Annotated[float, typer.Option(help="Work in hours at full power.")] = 24.0,
    window_hours: Annotated[float, typer.Option(help="Hours from the start to the deadline.")] = 48.0,
    hold_power: Annotated[float, typer.Option(help="Fraction of full power drawn while held.")] = HOLD_POWER,
    resume_hours: Annotated[float, typer.Option(help="Energy of an exit and restart, in hours at full power.")] = 0.1,
    return_time: Annotated[
        str, typer.Option(help="Time from starting an exited job again to its first work, such as 30min.")
    ] = "0min",
    out_power: Annotated[
        float, typer.Option(help="Fraction of full power drawn while exited, in an allocation that is kept.")
    ] = 0.0,
    throttle: Annotated[
        list[str] | None, typer.Option(help='Operating point "power:speed", for example 0.78:0.90. May be repeated.')
    ] = None,
    start_hour: Annotated[int, typer.Option(help="UTC hour at which every run starts.")] = 9,
    every_days: Annotated[int, typer.Option(help="Days between two runs.")] = 2,
    lag_hours: Annotated[
        int, typer.Option(help="Delay in hours after which an intensity is known; 1 hides the current hour.")
    ] = 1,
    perfect_hours: Annotated[
        int, typer.Option(help="Hours of every forecast that are the recorded values, to see what forecasts can win.")
    ] = 0,
    kind: Annotated[str, typer.Option(help="Kind of intensity: lifecycle or direct.")] = "lifecycle",
    modes: Annotated[str, typer.Option(help="Allowed pauses: exit,hold or one of them.")] = "exit,hold",
    price: Annotated[
        str | None,
        typer.Option(
            help="Electricity price per kWh: a number, or a CSV with datetime and price. Compares objectives."
        ),
    ] = None,
    carbon_price: Annotated[float | None, typer.Option(help="Money per kg CO2e, for --price.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a bar chart of the savings (needs matplotlib).")] = None,
) -> None:
    """Replay a recorded year and compare the emissions of scheduling policies with those of running at once.

    In every hour a policy gets only the data that was available at that time. Several --actual (and --forecast) give a
    table of zones and their mean. Other packages add policies through the entry point group lightning_green.policies.
    With --price, the planner minimizes the emissions, the electricity cost, and both.
    """
    forecasts = forecast or []
    if forecasts and len(forecasts) != len(actual):
        fail(f"Give one --forecast for each --actual, or none; got {len(forecasts)} for {len(actual)}.")
    pauses = frozenset(name.strip() for name in modes.split(",") if name.strip())
    if not pauses or not pauses <= PAUSES:
        fail(f"--modes should be exit, hold or both, such as exit,hold; got {modes!r}.")
    if (price is None) != (carbon_price is None):
        fail("Give --price and --carbon-price together; --carbon-price is money per kg CO2e, such as 0.1.")
    if price is not None and (len(actual) > 1 or plot is not None):
        fail("`--price` compares objectives in one zone. Give one --actual and no --plot.")
    results: list[ZoneResult] = []
    try:
        test = Backtest(
            work_hours=work_hours,
            window_hours=window_hours,
            hold_power=hold_power,
            resume_hours=resume_hours,
            throttle=tuple(_level(text) for text in throttle or ()),
            start_hour=start_hour,
            every_days=every_days,
            lag_hours=lag_hours,
            pauses=pauses,
            return_hours=parse_duration(return_time, "return_time").total_seconds() / 3600,
            out_power=out_power,
            perfect_hours=perfect_hours,
        )
        if price is not None and carbon_price is not None:
            archive = read_archive(actual[0], forecasts[0] if forecasts else None, cast(Scope, kind))
            _compare(test, archive, price, check_number("carbon_price", carbon_price), as_json)
            return
        for name in test.names:
            if name != OPTIMAL:
                _check_policy(name)
        for index, path in enumerate(actual):
            archive = read_archive(path, forecasts[index] if forecasts else None, cast(Scope, kind))
            results.append({"zone": archive.zone, "runs": len(test.starts(archive)), "policies": test.run(archive)})
    except OSError as error:
        fail(str(error) if error.strerror is None else f"{error.filename} cannot be read ({error.strerror}).")
    except ValueError as error:
        fail(str(error))
    if plot is not None:
        draw(results, plot)
    if as_json:
        typer.echo(json.dumps(results[0] if len(results) == 1 else {**mean_of(results), "zones": results}))
        return
    for result in results:
        typer.echo(f"{result['zone']}: {result['runs']} runs of {work_hours:g} h in {window_hours:g} h\n")
        typer.echo(as_text(policy_table(result)) + "\n")
    if len(results) > 1:
        typer.echo(as_text(zone_table(results)))


def _compare(test: Backtest, archive: ZoneArchive, price: str, carbon_price: float, as_json: bool) -> None:
    """Print what the planner saves if it minimizes emissions, electricity cost, or both."""
    found = compare_objectives(test, archive, build_prices(price, "--price"), carbon_price)
    if as_json:
        typer.echo(json.dumps({"zone": archive.zone, **asdict(found)}))
        return
    missing = f"; {found.runs_without_price} runs without known prices are left out" if found.runs_without_price else ""
    hours = f"{test.work_hours:g} h in {test.window_hours:g} h"
    typer.echo(f"{archive.zone}: {found.runs} runs of {hours}, carbon price {carbon_price:g} per kg CO2e{missing}\n")
    typer.echo(as_text(found.table()))


def _level(text: str) -> Level:
    try:
        return Level.parse(text)
    except ValueError as error:
        fail(f"`--throttle {text}` cannot be used: {error}")


def _check_policy(name: str) -> None:
    """Exit with a message if a policy, which may be part of another package, cannot be loaded."""
    try:
        build_policy(name)
    except (ImportError, AttributeError, TypeError) as error:
        fail(f"The policy {name!r} cannot be loaded: {error}. Fix or uninstall the package that registers it.")


def draw(results: list[ZoneResult], path: Path) -> None:
    """Write a bar chart of the savings of every policy in every zone."""
    try:
        import matplotlib as mpl

        mpl.use("agg")
        from matplotlib import pyplot as plt
    except ModuleNotFoundError:
        fail("--plot needs matplotlib: pip install 'lightning-green[demo]'.")
    shown = [*results, mean_of(results)] if len(results) > 1 else results
    names = [name for name in shown[0]["policies"] if name != RUN_NOW]
    figure, axes = plt.subplots(figsize=(2.5 + 1.6 * len(shown), 4), layout="constrained")
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        places = [zone + (index - (len(names) - 1) / 2) * width for zone in range(len(shown))]
        axes.bar(places, [result["policies"][name]["saving_pct"] or 0.0 for result in shown], width, label=name)
    axes.set_xticks(range(len(shown)), [result["zone"] for result in shown])
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_ylabel("saving relative to run now (%)")
    axes.legend(fontsize="small")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        fail(f"The figure cannot be written to {path} ({error}).")
    finally:
        plt.close(figure)
