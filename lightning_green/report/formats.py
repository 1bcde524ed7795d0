"""The formats of a report other than the page: Markdown, JSON, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from lightning_green.report.cost import KNOWN, RunCost
from lightning_green.report.run_report import RunReport
from lightning_green.report.text import method_paragraph, rows_of
from lightning_green.utilities.text import printable

COLUMNS = (
    *("run", "state", "steps", "kwh", "measured", "kind", "zone", "gco2e", "run_now_gco2e", "saving_pct"),
    *("saving_std_pct", "known_share", "hours_waited", "elapsed_hours", "exits", "starts", "pue"),
    *("cost", "run_now_cost", "cost_saved", "currency", "kwh_without_price", "market_gco2e"),
)
"""Columns of the CSV: energy in kWh, emissions in gCO2e, time in hours, cost in the currency of the prices."""


def markdown(reports: Sequence[RunReport]) -> str:
    """Return the figures of runs as a table in Markdown, and of a single run the paragraph for a paper."""
    names = [_cell(one.name) for one in reports]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    lines += [f"| {_cell(name)} | {' | '.join(map(_cell, values))} |" for name, values in rows_of(reports)]
    if len(reports) == 1:
        lines += ["", method_paragraph(reports[0])]
    return "\n".join(lines)


def json_record(report: RunReport) -> dict[str, Any]:
    """Return a run as JSON: its status as ``lightning-green status --json`` prints it, and its curves.

    Times are ISO 8601, or seconds since the epoch in the curves.
    """
    named = ("spans", "intensity", "forecasts", "decisions", "messages", "validations")
    found = {name: [one._asdict() for one in getattr(report, name)] for name in named}
    curves = {
        name: getattr(report, name) for name in ("phase_kwh", "emitted", "emitted_run_now", "power_times", "power")
    }
    settings = {name: getattr(report, name) for name in ("meter", "zone", "pue")}
    money = {
        "cost": None if report.cost is None else report.cost.to_json(),
        "market": None if report.market is None else asdict(report.market),
    }
    status = report.status.to_json()
    record: dict[str, Any] = _plain({"name": report.name, **status, **settings, **money, **found, **curves})
    return record


def csv_text(reports: Sequence[RunReport]) -> str:
    """Return one line for each run, with numbers in kWh, gCO2e, percent and hours; empty where one is unknown."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in reports:
        status, main = one.status, one.emissions
        emissions: list[Any] = [""] * 7
        if main is not None:
            emissions = [main.kind, one.zone, main.gco2e, main.run_now_gco2e, main.saving_pct, main.saving_std_pct]
            emissions.append(main.known_share)
        row = [one.name, status.state.name, status.steps, status.energy_kwh, one.is_measured, *emissions]
        row += [status.waited_hours, status.elapsed_hours, status.exits, status.starts, one.pue]
        row += [*_cost_cells(one.cost), "" if one.market is None else one.market.gco2e]
        writer.writerow([_formula_safe(value) for value in row])
    return out.getvalue().rstrip("\n")


def _cost_cells(cost: RunCost | None) -> list[Any]:
    if cost is None:
        return [""] * 5
    run_now = cost.run_now if cost.run_now_unknown_kwh <= KNOWN else ""
    return [cost.amount, run_now, "" if cost.saving is None else cost.saving, cost.currency, cost.unknown_kwh]


def _formula_safe(value: Any) -> Any:
    """Return a value that a spreadsheet does not compute as a formula, and a terminal does not obey."""
    if not isinstance(value, str):
        return value
    text = " ".join(printable(value).split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _cell(text: str) -> str:
    """Return a text for a cell of a table in Markdown."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value
