"""The use of a budget as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_green.ledger.events import BudgetChecked
from lightning_green.utilities.quantities import format_energy, format_grams, format_money, format_percent

FORMATS: Mapping[str, Callable[[float], str]] = {"kwh": format_energy, "gco2e": format_grams, "cost": format_money}
"""Function that formats a value of each unit of a budget."""


def describe_budget(limits: Mapping[str, Any], used: Mapping[str, Any], runs: int = 1, directory: Any = None) -> str:
    """Return the use of a budget, of the units that have a limit; empty without one.

    Args:
        limits: Limits by unit; a record may contain anything.
        used: Use by unit.
        runs: Number of runs.
        directory: Directory that they share, or None.

    Examples:
        >>> describe_budget({"kwh": 20.0}, {"kwh": 15.0}, 3, "/shared/sweep")
        '15.00 kWh of 20.00 kWh (75.0 %) by 3 runs in /shared/sweep'

    """
    parts = []
    for name, text in FORMATS.items():
        limit, value = limits.get(name), used.get(name)
        if isinstance(limit, (int, float)) and isinstance(value, (int, float)) and limit > 0:
            parts.append(f"{text(value)} of {text(limit)} ({format_percent(100 * value / limit)})")
    if not parts or directory is None:
        return " and ".join(parts)
    return f"{' and '.join(parts)} by {runs} {'run' if runs == 1 else 'runs'} in {directory}"


def budget_fields(event: BudgetChecked) -> dict[str, Any]:
    """Return the arguments of ``describe_budget`` for the last known use of a budget."""
    return {"limits": event.limits, "used": event.used, "runs": event.runs, "directory": event.directory}
