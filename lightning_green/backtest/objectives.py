"""Compare what the planner can minimize: emissions, electricity cost, or both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from lightning_green.backtest.planner_policy import PlannerPolicy
from lightning_green.backtest.policies import Policy, run_now
from lightning_green.backtest.replay import replay
from lightning_green.backtest.scenario import HOUR, Scenario
from lightning_green.backtest.zone_archive import ZoneArchive
from lightning_green.planning.prices import PriceSeries

COLUMNS = {
    "gco2e_per_kw": "gCO2e/kW",
    "emissions_saving_pct": "saving %",
    "cost_per_kw": "cost/kW",
    "cost_saving_pct": "cost saving %",
    "total_per_kw": "cost with carbon/kW",
    "exits_per_run": "exits",
}
"""Figures of an objective and their headers. Emissions and costs are means of a run per kW of full power."""


@dataclass(frozen=True)
class ObjectiveComparison:
    """The figures of each objective.

    Args:
        runs: Number of runs.
        runs_without_price: Number of runs that are left out because a price of their time is unknown.
        carbon_price: Money per kg CO2e of the objective ``"both"``.
        objectives: `COLUMNS` of ``"run_now"``, ``"carbon"``, ``"cost"`` and ``"both"``; a percentage is None if the
            reference is not positive.

    """

    runs: int
    runs_without_price: int
    carbon_price: float
    objectives: dict[str, dict[str, float | None]]

    def table(self) -> list[list[str]]:
        """Return a header and one row per objective."""
        rows = [["objective", *COLUMNS.values()]]
        for name, row in self.objectives.items():
            rows.append([name, *("-" if row[key] is None else f"{row[key]:.2f}" for key in COLUMNS)])
        return rows


def compare_objectives(
    scenario: Scenario, archive: ZoneArchive, prices: PriceSeries, carbon_price: float
) -> ObjectiveComparison:
    """Replay runs of the planner that minimize emissions, electricity cost, and the cost of electricity and carbon.

    In every hour the planner gets the prices that were published: from 12:00 UTC those of the next day (UTC). Later
    hours are estimated.

    Args:
        scenario: The job and its costs.
        archive: Recorded intensities and forecasts.
        prices: Electricity prices in money per kWh.
        carbon_price: Money per kg CO2e.

    Raises:
        ValueError: If the archive is too short for a single run, or the prices cover none.

    """
    starts = scenario.starts(archive)
    edges = (archive.first + np.arange(len(archive.actual) + 1)) * HOUR
    hourly, known = prices.means(edges[:-1], edges[1:])
    hours = math.ceil(max(scenario.window_hours, scenario.work_hours))
    priced = [start for start in starts if (known[start - archive.first :][:hours] == 1.0).all()]
    if not priced:
        raise ValueError(
            f"{prices.source} has no prices for the {len(starts)} runs that {archive.zone} is long enough for. Give "
            "prices of the same hours."
        )
    objectives: tuple[tuple[str, Scenario], ...] = (
        ("run_now", scenario),
        ("carbon", scenario),
        ("cost", replace(scenario, prices=prices, carbon_price=0.0)),
        ("both", replace(scenario, prices=prices, carbon_price=carbon_price)),
    )
    found: dict[str, dict[str, float | None]] = {}
    for name, one in objectives:
        policy: Policy = run_now if name == "run_now" else PlannerPolicy()
        jobs = [replay(one, archive, start, policy, hourly) for start in priced]
        grams = math.fsum(job.attributed for job in jobs) / len(jobs)
        cost = math.fsum(job.cost for job in jobs) / len(jobs)
        base = found.get("run_now", {"gco2e_per_kw": grams, "cost_per_kw": cost})
        found[name] = {
            "gco2e_per_kw": grams,
            "emissions_saving_pct": _saving(grams, base["gco2e_per_kw"]),
            "cost_per_kw": cost,
            "cost_saving_pct": _saving(cost, base["cost_per_kw"]),
            "total_per_kw": cost + carbon_price * grams / 1000,
            "exits_per_run": sum(job.exits for job in jobs) / len(jobs),
        }
    return ObjectiveComparison(len(priced), len(starts) - len(priced), carbon_price, found)


def _saving(value: float, base: float | None) -> float | None:
    return 100.0 * (1.0 - value / base) if base is not None and base > 0.0 else None
