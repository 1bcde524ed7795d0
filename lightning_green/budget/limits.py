"""Limits of a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lightning_green.report.budget_text import FORMATS
from lightning_green.utilities.validation import check_number


@dataclass(frozen=True)
class Limits:
    """Limits of a budget; None for no limit in a unit.

    Args:
        kwh: Energy of the devices in kWh.
        gco2e: Emissions in gCO2e, after PUE.
        cost: Electricity cost in money, after PUE.

    Raises:
        ValueError: If a limit is not a finite number above 0.

    Examples:
        >>> str(Limits(kwh=20.0, gco2e=5000.0))
        '20.00 kWh and 5.000 kgCO2e'

    """

    kwh: float | None = None
    gco2e: float | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None:
                object.__setattr__(self, name, check_number(name, value, above_low=True))

    def __bool__(self) -> bool:
        return bool(self.to_json())

    def __str__(self) -> str:
        return " and ".join(FORMATS[name](value) for name, value in self.to_json().items())

    def replace(self, other: Limits) -> Limits:
        """Return these limits with those that ``other`` has in their place."""
        return Limits(**{**self.to_json(), **other.to_json()})

    def to_json(self) -> dict[str, float]:
        """Return the limits by unit, without those that are not set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Limits:
        """Return the limits that ``to_json`` has written.

        Raises:
            ValueError: If the record contains something else.

        """
        known = {field.name for field in fields(cls)}
        if not isinstance(record, Mapping) or not set(record) <= known:
            raise ValueError(f"limits should have the names {', '.join(sorted(known))}, got {record!r:.80}")
        return cls(**record)
