"""The annual mean of a country, the last resort of ``grid="auto"``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import pycountry
from typing_extensions import override

from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.grid.zones import parse_place


@dataclass(frozen=True)
class AnnualFigure:
    """A country's mean carbon intensity over a year.

    Args:
        value: Carbon intensity in gCO2e/kWh, average and lifecycle.
        country: ISO 3166 code of three letters.
        name: The country's name.
        year: Year of the mean.

    """

    value: float
    country: str
    name: str
    year: int


class AnnualMean(ConstantSignal):
    """A country's annual mean from codecarbon's data, as a constant that is labeled static.

    All hours are equal, so a scheduler runs immediately.

    Args:
        zone: ISO country code of two or three letters, or an Electricity Maps zone or a cloud region, for its country's
            mean.

    Raises:
        ValueError: If ``zone`` is unknown, or has no annual mean.

    Examples:
        ```python
        EmissionsTracker(grid=AnnualMean("DE"))
        ```

    """

    def __init__(self, zone: str) -> None:
        self.figure = annual_figure(zone)
        super().__init__(self.figure.value, zone=str(parse_place(zone)))
        self.source = f"annual mean {self.figure.country} {self.figure.year}"

    @override
    def spec(self) -> dict[str, Any] | None:
        return self._spec(zone=self.zone)

    @override
    def describe(self) -> str:
        return (
            f"annual mean of {self.figure.name} {self.figure.year} ({self.value:g} gCO2e/kWh, codecarbon's data), "
            f"{self.kind}, static: all hours are equal, so a run does not wait"
            + (f" ({self.reason})" if self.reason else "")
        )


def annual_figure(zone: str) -> AnnualFigure:
    """Return the annual mean of the country of ``zone``.

    Args:
        zone: ``"DE"``, ``"DEU"``, a zone such as ``"US-CAL-CISO"``, or a cloud region, for its country.

    Raises:
        TypeError: If ``zone`` is not a string.
        ValueError: If ``zone`` is unknown, or codecarbon has no figure for its country.

    Examples:
        >>> annual_figure("DE").country
        'DEU'

    """
    code = country_code(zone)
    row = _energy_mix().get(code or "")
    if row is None:
        raise ValueError(f'`zone` should be a place such as "DE" with a known annual mean, got {zone!r}.')
    return AnnualFigure(float(row["carbon_intensity"]), str(code), str(row["country_name"]), int(row["year"]))


def country_code(zone: str) -> str | None:
    """Return the three-letter ISO code of the country of ``zone``; None for coordinates and Kosovo.

    Raises:
        TypeError: If ``zone`` is not a string.
        ValueError: If ``zone`` is unknown.

    """
    found = pycountry.countries.get(alpha_2=parse_place(zone).country or "")
    return None if found is None else str(found.alpha_3)


@lru_cache(maxsize=1)
def _energy_mix() -> dict[str, dict[str, Any]]:
    # Read from the installed package, so that newer versions of codecarbon provide newer means.
    path = files("codecarbon") / "data" / "private_infra" / "global_energy_mix.json"
    table: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return table
