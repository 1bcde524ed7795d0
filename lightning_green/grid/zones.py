"""Places: an Electricity Maps zone, an ISO country, a cloud region, or latitude and longitude."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import pycountry

from lightning_green.grid.cloud_regions import CLOUD_REGIONS, SEVERAL_GRIDS, cloud_zone
from lightning_green.grid.zone_names import COUNTRY_CODES, PARTS, ZONES

_COORDINATES = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*")
_CLOUD_REGION = re.compile(r"[A-Z]+(-[A-Z]+)+-?[0-9]+[A-Z]?")  # AWS and Google Cloud
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
    """Return the place for ``zone``. Names are exact: a typo is an error with the nearest names.

    Args:
        zone: ``"DE"``, ``"DEU"``, ``"UK"``, ``"US-CAL-CISO"``, a cloud region such as ``"us-east-1"``, or
            ``"52.5,13.4"``.
        argument: Name of the argument, for the error message.

    Raises:
        TypeError: If ``zone`` is not a string.
        ValueError: If it is not a place.

    Examples:
        >>> str(parse_place("deu")), str(parse_place("europe-west3")), parse_place("52.5,13.4").latitude
        ('DE', 'DE', 52.5)

    """
    if not isinstance(zone, str):
        raise TypeError(f'`{argument}` should be a string such as "DE" or "52.5,13.4", got {zone!r}.')
    found = _COORDINATES.fullmatch(zone)
    if found:
        latitude, longitude = float(found[1]), float(found[2])
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
            raise ValueError(f"`{argument}` should be latitude,longitude in degrees, got {zone!r}.")
        return Place(latitude=latitude, longitude=longitude)
    code = cloud_zone(zone) or zone.strip().upper()
    if len(code) == 3:
        country = pycountry.countries.get(alpha_3=code)
        code = code if country is None else str(country.alpha_2)
    code = _ALIASES.get(code, code)
    if code not in ZONES:
        raise ValueError(
            f'`{argument}` should be an Electricity Maps zone ("DE", "US-CAL-CISO"), an ISO country, a region of AWS, '
            f'Google Cloud or Azure, or "52.5,13.4", got {zone!r}.{_suggestion(code)}'
        )
    return Place(code=code)


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Return the sentence of an error message that contains up to three known names like ``name``; empty without one.

    Examples:
        >>> nearest_names("CAISO_NORT", ["CAISO_NORTH", "PJM_DC"])
        ' Did you mean CAISO_NORTH?'

    """
    by_key = {one.upper(): one for one in known}
    return _question([by_key[key] for key in get_close_matches(name.strip().upper(), by_key, n=3)])


def _suggestion(code: str) -> str:
    """Return the sentence of an error message that contains the known places like ``code``."""
    regions = (*CLOUD_REGIONS, *SEVERAL_GRIDS)
    if _CLOUD_REGION.fullmatch(code):
        return nearest_names(code, regions)
    country = code.partition("-")[0]
    if "-" in code and country in COUNTRY_CODES:
        if country not in PARTS:
            return _question([country])
        own = (country, *PARTS[country])
        return nearest_names(code, own) or f" The zones of {country} are {', '.join(own)}."
    by_name = {str(country.name).upper(): str(country.alpha_2) for country in pycountry.countries}
    found = get_close_matches(code, by_name, n=1, cutoff=0.8)
    return _question([by_name[name] for name in found]) or nearest_names(code, (*ZONES, *regions))


def _question(names: list[str]) -> str:
    return f" Did you mean {', '.join(names[:-1])}{' or ' if len(names) > 1 else ''}{names[-1]}?" if names else ""
