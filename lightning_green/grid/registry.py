"""Conversion of the ``grid`` argument to a signal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from lightning_green.grid.auto import auto_grid
from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.grid.providers.file import FileSignal
from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.grid.providers.trace import TraceSignal
from lightning_green.grid.signal import GridSignal
from lightning_green.grid.spec import grid_from_spec
from lightning_green.utilities.registry import Registry

GridLike = GridSignal | str | float | dict[str, Any] | list[Any] | Callable[[datetime], float] | None
"""Types of the `grid=` argument; `build_grid` describes them."""

SOURCES = Registry(
    "lightning_green.grid",
    {
        "annual": "lightning_green.grid.providers.annual:AnnualMean",
        "electricity-maps": "lightning_green.grid.providers.electricity_maps:ElectricityMapsSignal",
        "energi-data-service": "lightning_green.grid.providers.energi_data_service:EnergiDataServiceSignal",
        "energy-charts": "lightning_green.grid.providers.energy_charts:EnergyChartsSignal",
        "neso": "lightning_green.grid.providers.neso:NesoSignal",
        "typical": "lightning_green.grid.providers.typical_day:TypicalDay",
        "watttime": "lightning_green.grid.providers.watttime:WattTimeSignal",
    },
)
"""Sources by name, for ``grid="name:ZONE"``. Other packages add sources through entry points."""

_CHOICES = (
    'a GridSignal, a number of gCO2e/kWh, the path of a .csv or .parquet trace, "typical:DE", "auto:DE", '
    'a source and its zone ("electricity-maps:DE"; {sources}), a callable from a datetime to gCO2e/kWh, a list of '
    "these (the first and its fallbacks), a dict with class_path and init_args, or None for energy without emissions"
)


def build_grid(grid: GridLike, zone: str | None = None) -> GridSignal | None:
    """Return the signal for ``grid``; None for None, which means energy without emissions.

    Args:
        grid: A signal, a number, a path, a string such as ``"typical:DE"``, ``"electricity-maps:DE"`` or ``"auto"``, a
            callable, a list of these, or a spec.
        zone: Grid zone, for forms of ``grid`` that do not contain it.

    Raises:
        TypeError: If ``grid`` is of another type.
        ValueError: If a string or a spec is invalid, or ``zone`` contradicts ``grid``.

    Examples:
        >>> build_grid(381.0, zone="DE").describe()
        'constant 381 gCO2e/kWh, average/lifecycle, zone DE'

    """
    _refuse_contradiction(grid, zone)
    if grid is None or isinstance(grid, GridSignal):
        return grid
    if isinstance(grid, dict):
        return grid_from_spec(grid)
    if isinstance(grid, (list, tuple)):
        if not grid:
            raise ValueError("`grid` as a list should contain at least one source, got an empty list.")
        return build_grid(grid[0], zone) if len(grid) == 1 else _chain(grid, zone)
    if isinstance(grid, str):
        return _from_string(grid.strip(), zone)
    if isinstance(grid, (int, float)) and not isinstance(grid, bool):
        return ConstantSignal(grid, zone=zone)
    if callable(grid) and not isinstance(grid, type):
        return FunctionSignal(grid, zone=zone)
    raise TypeError(f"`grid` should be {_choices()}; got {grid!r}.")


def _refuse_contradiction(grid: GridLike, zone: str | None) -> None:
    """Raise if ``zone`` would be ignored because every part of ``grid`` has another zone."""
    if zone is None or grid is None:
        return
    zones = [own_zone(part) for part in (grid if isinstance(grid, (list, tuple)) else [grid])]
    places = [place for place in zones if place is not None]
    if len(places) == len(zones) and zone.strip().casefold() not in {place.casefold() for place in places}:
        raise ValueError(f"`zone` should be omitted or equal the zone {places[0]!r} of `grid`, got {zone!r}.")


def own_zone(part: Any) -> str | None:
    """Return the zone that one part of a grid contains, or None."""
    if isinstance(part, str):
        source, _, place = part.partition(":")
        return place.strip() or None if source.strip().lower() in ("auto", *SOURCES) else None
    if isinstance(part, dict):
        arguments = part.get("init_args")
        zone = arguments.get("zone") if isinstance(arguments, dict) else None
    else:
        zone = getattr(part, "zone", None)
    return zone if isinstance(zone, str) else None


def _from_string(text: str, zone: str | None) -> GridSignal | None:
    name, _, rest = text.partition(":")
    source, place = name.strip().lower(), rest.strip() or zone
    if source == "auto":
        return auto_grid(place)
    if source == "file" and rest:
        return FileSignal(rest.strip(), zone=zone)
    if text.lower().endswith((".csv", ".parquet")):
        return TraceSignal(text, zone=zone)
    if source in SOURCES:
        return named_source(source, place)
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"`grid` should be {_choices()}; got {text!r}.") from None
    return ConstantSignal(value, zone=zone)


def named_source(source: str, place: str | None) -> GridSignal:
    """Return the signal of the source named ``source`` (one of ``SOURCES``) for ``place``.

    Raises:
        TypeError: If the registered class is not a ``GridSignal``.
        ValueError: If the place is missing or unknown.

    """
    cls: type[GridSignal] = SOURCES.load_class(source, GridSignal)
    return cls.from_zone(place)


def _chain(grid: Any, zone: str | None) -> GridSignal:
    parts = [build_grid(part, zone if own_zone(part) is None else None) for part in grid]
    return ChainSignal(parts[0], fallback=parts[1:])


def _choices() -> str:
    return _CHOICES.format(sources=", ".join(sorted(SOURCES)))
