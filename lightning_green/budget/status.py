"""How much of a budget is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_green.budget.limits import Limits
from lightning_green.budget.usage import Usage
from lightning_green.report.budget_text import describe_budget
from lightning_green.utilities.quantities import format_energy, format_grams

_KNOWN = 1e-9  # kWh below which nothing is unknown


@dataclass(frozen=True)
class BudgetStatus:
    """How much of a budget is used.

    Args:
        limits: The limits.
        usage: Use of all runs.
        kind: Kind of carbon intensity whose emissions count; None if it is not known.
        runs: Number of runs.
        directory: Directory that the runs share; None for the budget of one run.

    Examples:
        >>> status = BudgetStatus(Limits(kwh=20.0), Usage(kwh=15.0))
        >>> status.fraction, status.is_used, str(status)
        (0.75, False, '15.00 kWh of 20.00 kWh (75.0 %)')

    """

    limits: Limits
    usage: Usage = field(default_factory=Usage)
    kind: str | None = None
    runs: int = 1
    directory: Path | None = None

    @property
    def used(self) -> dict[str, float]:
        """Use by unit, of the units that have a limit."""
        grams = self.usage.gco2e.get(self.kind or "", 0.0)
        values = {"kwh": self.usage.kwh, "gco2e": grams, "cost": self.usage.cost}
        return {name: values[name] for name in self.limits.to_json()}

    @property
    def fraction(self) -> float:
        """Largest use as a fraction of its limit; 0 without a limit."""
        limits = self.limits.to_json()
        return max((value / limits[name] for name, value in self.used.items()), default=0.0)

    @property
    def is_used(self) -> bool:
        """Whether a limit is reached."""
        return self.fraction >= 1.0

    def __str__(self) -> str:
        return describe_budget(self.limits.to_json(), self.used, self.runs, self.directory)

    def notes(self) -> Iterator[str]:
        """Yield sentences about what the use does not contain."""
        others = {kind: grams for kind, grams in self.usage.gco2e.items() if kind != self.kind and grams}
        if self.limits.gco2e is not None and others:
            kinds = ", ".join(f"{format_grams(grams)} ({kind})" for kind, grams in others.items())
            yield f"Emissions of other kinds of carbon intensity do not count: {kinds}."
        if self.limits.gco2e is not None and self.usage.unknown_intensity_kwh > _KNOWN:
            yield (
                f"The carbon intensity of {format_energy(self.usage.unknown_intensity_kwh)} is unknown; its emissions "
                "are not included."
            )
        if self.limits.cost is not None and self.usage.unknown_price_kwh > _KNOWN:
            yield f"The price of {format_energy(self.usage.unknown_price_kwh)} is unknown; its cost is not included."

    def to_json(self) -> dict[str, Any]:
        """Return the status as a JSON object."""
        return {
            "directory": None if self.directory is None else str(self.directory),
            "limits": {name: self.limits.to_json().get(name) for name in ("kwh", "gco2e", "cost")},
            "used": self.usage.to_json(),
            "kind": self.kind,
            "fraction": self.fraction,
            "is_used": self.is_used,
            "runs": self.runs,
        }
