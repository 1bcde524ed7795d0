"""The formats of a report other than the page: Markdown, JSON, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_green.report.run_report import RunReport
from lightning_green.report.text import method_paragraph, rows_of

_CURVES = ("spans", "intensity", "forecasts", "emitted", "emitted_run_now", "power_times", "power")


COLUMNS = (
    *("run", "state", "steps", "kwh", "measured", "kind", "zone", "gco2e", "run_now_gco2e", "saving_pct"),
    *("saving_std_pct", "known_share", "hours_waited", "elapsed_hours", "exits", "starts", "pue"),
)
"""Columns of the CSV: energy in kWh, emissions in gCO2e, time in hours."""


def markdown(reports: Sequence[RunReport]) -> str:
    """Return the figures of runs as a table in Markdown, and of a single run the paragraph for a paper."""
    names = [_cell(one.name) for one in reports]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    lines += [f"| {_cell(name)} | {' | '.join(map(_cell, values))} |" for name, values in rows_of(reports)]
    if len(reports) == 1:
        lines += ["", method_paragraph(reports[0])]
    return "\n".join(lines)


def json_record(report: RunReport, curves: bool = True) -> dict[str, Any]:
    """Return a run as JSON.

    Args:
        report: The run.
        curves: Whether to include the curves of the charts.

    """
    record = {name: value for name, value in asdict(report).items() if curves or name not in _CURVES}
    for name in ("emissions", "components", "decisions", "messages", "validations", "spans", "forecasts"):
        if name in record:  # `asdict` keeps named tuples, which are lists in JSON
            record[name] = [one._asdict() for one in getattr(report, name)]
    record["kwh"] = report.kwh
    found: dict[str, Any] = _plain(record)
    return found


def csv_text(reports: Sequence[RunReport]) -> str:
    """Return one line for each run, with numbers in kWh, gCO2e, percent and hours; empty where one is unknown."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in reports:
        main = one.main_emissions
        emissions = (
            [""] * 7
            if main is None
            else [main.kind, one.zone, main.grams, main.run_now, main.saving_pct, main.saving_std_pct, main.known_share]
        )
        row = [one.name, one.ended_by, one.steps, one.kwh, one.is_measured, *emissions]
        writer.writerow(
            [_formula_safe(value) for value in row]
            + [one.hours_waited, one.elapsed_hours, one.exits, one.attempts, one.pue]
        )
    return out.getvalue().rstrip("\n")


def _formula_safe(value: Any) -> Any:
    """Return a value that a spreadsheet does not compute as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _cell(text: str) -> str:
    """Return a text for a cell of a table in Markdown."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value
