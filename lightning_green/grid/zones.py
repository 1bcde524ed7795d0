"""Places: an Electricity Maps zone, an ISO country, or latitude and longitude."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pycountry

_COORDINATES = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*")
_CODE = re.compile(r"[A-Z]{2,3}[0-9]?(-[A-Z0-9]+)*")


_ALIASES = {"UK": "GB", "EL": "GR", "DK1": "DK-DK1", "DK2": "DK-DK2"}
"""Common names that are neither in ISO 3166 nor in Electricity Maps."""


@dataclass(frozen=True)
class Place:
    """A place with a grid.

    Args:
        code: An Electricity Maps zone such as ``"DE"`` or ``"US-CAL-CISO"``; None for coordinates.
        latitude: Degrees north, or None.
        longitude: Degrees east, or None.

    """

    code: str | None = None
    latitude: float | None = None
    longitude: float | None = None

    @property
    def country(self) -> str | None:
        """The ISO country code of two letters, or None for coordinates."""
        return None if self.code is None else self.code.split("-")[0]

    def __str__(self) -> str:
        return self.code or f"{self.latitude:g},{self.longitude:g}"


def parse_place(zone: str, argument: str = "zone") -> Place:
    """Return the place for ``zone``.

    Args:
        zone: ``"DE"``, ``"DEU"``, ``"UK"``, ``"US-CAL-CISO"`` or ``"52.5,13.4"``.
        argument: Name of the argument, for the error message.

    Raises:
        TypeError: If ``zone`` is not a string.
        ValueError: If it is not a place.

    Examples:
        >>> str(parse_place("deu")), parse_place("52.5,13.4").latitude
        ('DE', 52.5)

    """
    if not isinstance(zone, str):
        raise TypeError(f'`{argument}` should be a string such as "DE" or "52.5,13.4", got {zone!r}.')
    found = _COORDINATES.fullmatch(zone)
    if found:
        latitude, longitude = float(found[1]), float(found[2])
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
            raise ValueError(f"`{argument}` should be latitude,longitude in degrees, got {zone!r}.")
        return Place(latitude=latitude, longitude=longitude)
    code = zone.strip().upper()
    if not _CODE.fullmatch(code):
        raise ValueError(
            f'`{argument}` should be an Electricity Maps zone ("DE", "US-CAL-CISO"), an ISO country or "52.5,13.4", '
            f"got {zone!r}."
        )
    if len(code) == 3:
        country = pycountry.countries.get(alpha_3=code)
        code = code if country is None else str(country.alpha_2)
    return Place(code=_ALIASES.get(code, code))
