"""Results of a backtest over several zones: their mean, and tables for people."""

from __future__ import annotations

import math
from typing import TypedDict

from lightning_green.backtest.backtest import OPTIMAL, SMALLEST_OPTIMUM

Figures = dict[str, dict[str, float | None]]
COLUMNS = {
    "saving_pct": "saving %",
    "worse_than_run_now_pct": "worse %",
    "mean_delay_hours": "delay h",
    "deadline_misses": "missed",
    "exits_per_run": "exits",
    "share_of_optimal": "share",
}


class ZoneResult(TypedDict):
    """What the backtest says about one zone."""

    zone: str
    runs: int
    policies: Figures


def mean_of(results: list[ZoneResult]) -> ZoneResult:
    """Return the mean over zones, each counted alike; missed deadlines are added up.

    The mean share of the optimum is the ratio of the mean savings, not the mean of the ratios.
    """
    policies: Figures = {}
    for name in results[0]["policies"]:
        rows = [result["policies"][name] for result in results]
        policies[name] = {
            key: math.fsum(row[key] or 0.0 for row in rows) / (1 if key == "deadline_misses" else len(rows))
            for key in COLUMNS
        }
    best = policies[OPTIMAL]["saving_pct"] or 0.0
    for row in policies.values():
        row["deadline_misses"] = int(row["deadline_misses"] or 0)
        row["share_of_optimal"] = (row["saving_pct"] or 0.0) / best if best >= SMALLEST_OPTIMUM else None
    return {"zone": "mean", "runs": sum(result["runs"] for result in results), "policies": policies}


def policy_table(result: ZoneResult) -> list[list[str]]:
    """Return one row a policy, with a header."""
    rows = [["policy", *COLUMNS.values()]]
    for name, row in result["policies"].items():
        rows.append([name, *(_cell(key, row[key]) for key in COLUMNS)])
    return rows


def zone_table(results: list[ZoneResult]) -> list[list[str]]:
    """Return the savings in percent, one row a policy and one column a zone, with the mean and the mean share."""
    mean = mean_of(results)
    rows = [["saving %", *(result["zone"] for result in results), "mean", "share"]]
    for name, row in mean["policies"].items():
        cells = [_cell("saving_pct", result["policies"][name]["saving_pct"]) for result in (*results, mean)]
        rows.append([name, *cells, _cell("share_of_optimal", row["share_of_optimal"])])
    return rows


def as_text(rows: list[list[str]]) -> str:
    """Return a table in columns, the first one to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key == "deadline_misses":
        return f"{value:.0f}"
    return f"{value:.3f}" if key == "share_of_optimal" else f"{value:.2f}"
