"""Figures of a backtest, their mean over several zones, and tables."""

from __future__ import annotations

import math
from typing import TypedDict

from lightning_green.backtest.scenario import Scenario
from lightning_green.backtest.simulator import Simulator

RUN_NOW, OPTIMAL = "run_now", "optimal"
MIN_OPTIMAL_PCT = 0.5
"""Minimum saving of the optimum in percent for which a share of it is reported."""
TIE = 1e-9
Figures = dict[str, dict[str, float | None]]
"""The columns of `COLUMNS` for each policy."""
COLUMNS = {
    "saving_pct": "saving %",
    "worse_than_run_now_pct": "worse %",
    "mean_delay_hours": "delay h",
    "deadline_misses": "missed",
    "exits_per_run": "exits",
    "share_of_optimal": "share",
}


class ZoneResult(TypedDict):
    """The result of one zone.

    Args:
        zone: Name of the zone.
        runs: Number of runs.
        policies: Figures of each policy.

    """

    zone: str
    runs: int
    policies: Figures


def summarize(outcomes: dict[str, list[Simulator]], scenario: Scenario) -> Figures:
    """Return saving, harm, delay, missed deadlines, exits and share of the optimal saving for each policy.

    ``saving_pct`` is the saving of the summed emissions relative to run-now. A deadline counts as missed only if
    running now would have met it.

    Args:
        outcomes: Finished runs under each policy, including ``"run_now"`` and ``"optimal"``.
        scenario: The job of the runs.

    """
    reference = [job.attributed for job in outcomes[RUN_NOW]]
    total = math.fsum(reference)
    optimum = 100 * (1 - math.fsum(job.attributed for job in outcomes[OPTIMAL]) / total) if total else 0.0
    feasible = scenario.work_hours <= scenario.window_hours + 1e-9
    figures: Figures = {}
    for name, jobs in outcomes.items():
        emissions = [job.attributed for job in jobs]
        saving = 100 * (1 - math.fsum(emissions) / total) if total else 0.0
        worse = sum(own > base * (1 + TIE) for own, base in zip(emissions, reference, strict=True))
        figures[name] = {
            "saving_pct": saving,
            "worse_than_run_now_pct": 100 * worse / len(jobs),
            "mean_delay_hours": math.fsum(job.hours - scenario.work_hours for job in jobs) / len(jobs),
            "deadline_misses": sum(feasible and job.hours > scenario.window_hours + 1e-6 for job in jobs),
            "exits_per_run": sum(job.exits for job in jobs) / len(jobs),
            "share_of_optimal": saving / optimum if optimum >= MIN_OPTIMAL_PCT else None,
        }
    return figures


def mean_of(results: list[ZoneResult]) -> ZoneResult:
    """Return the unweighted mean over zones; missed deadlines are summed.

    The mean share of the optimum is the ratio of the mean savings.
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
        row["share_of_optimal"] = (row["saving_pct"] or 0.0) / best if best >= MIN_OPTIMAL_PCT else None
    return {"zone": "mean", "runs": sum(result["runs"] for result in results), "policies": policies}


def policy_table(result: ZoneResult) -> list[list[str]]:
    """Return a header and one row per policy."""
    rows = [["policy", *COLUMNS.values()]]
    for name, row in result["policies"].items():
        rows.append([name, *(_cell(key, row[key]) for key in COLUMNS)])
    return rows


def zone_table(results: list[ZoneResult]) -> list[list[str]]:
    """Return the savings in percent: one row per policy, one column per zone, the mean and the mean share."""
    mean = mean_of(results)
    rows = [["saving %", *(result["zone"] for result in results), "mean", "share"]]
    for name, row in mean["policies"].items():
        cells = [_cell("saving_pct", result["policies"][name]["saving_pct"]) for result in (*results, mean)]
        rows.append([name, *cells, _cell("share_of_optimal", row["share_of_optimal"])])
    return rows


def as_text(rows: list[list[str]]) -> str:
    """Return a table as aligned text, the first column left-aligned and the others right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(rows: list[list[str]]) -> str:
    """Return a table as Markdown."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key == "deadline_misses":
        return f"{value:.0f}"
    return f"{value:.3f}" if key == "share_of_optimal" else f"{value:.2f}"
