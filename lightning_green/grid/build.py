"""From what a user writes as ``grid=`` to a signal, and from a signal's spec back to it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from lightning_green.grid.constant import ConstantSignal
from lightning_green.grid.function import FunctionSignal
from lightning_green.grid.signal import GridSignal
from lightning_green.grid.trace import TraceSignal

GridLike = GridSignal | str | float | dict[str, Any] | list[Any] | Callable[[datetime], float] | None

SOURCES = {
    "annual": "annual.AnnualMean",
    "electricity-maps": "electricity_maps.ElectricityMapsSignal",
    "energi-data-service": "energi_data_service.EnergiDataServiceSignal",
    "energy-charts": "energy_charts.EnergyChartsSignal",
    "neso": "neso.NesoSignal",
    "typical": "typical_day.TypicalDay",
    "watttime": "watttime.WattTimeSignal",
}
"""Sources that need no more than a zone, and the class of each within this package."""

_CHOICES = (
    'a GridSignal, a number of gCO2e/kWh, the path of a .csv or .parquet trace, "typical:DE", "auto:DE", '
    'a source and its zone ("electricity-maps:DE"; {sources}), a callable from a datetime to gCO2e/kWh, a list of '
    "these (the first, and what stands in for it), a dict with class_path and init_args, or None for energy alone"
)


def build_grid(grid: GridLike, zone: str | None = None) -> GridSignal | None:
    """Return the signal that ``grid`` stands for; None for None, which means energy and no emissions.

    Args:
        grid: A signal, a number, a path, a string such as ``"typical:DE"``, ``"electricity-maps:DE"`` or ``"auto"``, a
            callable, a list of these, or a spec.
        zone: Grid zone, for those of the above that do not say it themselves.

    Raises:
        TypeError: If ``grid`` is of a type that means nothing here.
        ValueError: If a string or a spec means nothing here, or ``zone`` is another one than ``grid`` says.

    Example::

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
            raise ValueError("`grid` as a list should name at least one source, got an empty list.")
        return build_grid(grid[0], zone) if len(grid) == 1 else _chain(grid, zone)
    if isinstance(grid, str):
        return _from_string(grid.strip(), zone)
    if isinstance(grid, (int, float)) and not isinstance(grid, bool):
        return ConstantSignal(grid, zone=zone)
    if callable(grid) and not isinstance(grid, type):
        return FunctionSignal(grid, zone=zone)
    raise TypeError(f"`grid` should be {_choices()}; got {grid!r}.")


def _refuse_contradiction(grid: GridLike, zone: str | None) -> None:
    """Raise where ``zone`` would be dropped, because all of ``grid`` is about other zones."""
    if zone is None or grid is None:
        return
    said = [own_zone(part) for part in (grid if isinstance(grid, (list, tuple)) else [grid])]
    places = [place for place in said if place is not None]
    if len(places) == len(said) and zone.strip().casefold() not in {place.casefold() for place in places}:
        raise ValueError(f"`zone` should be left out, or be {places[0]!r} as the grid says itself, got {zone!r}.")


def own_zone(part: Any) -> str | None:
    """Return the zone that one part of a grid is about by itself, None where it has none."""
    if isinstance(part, str):
        source, _, place = part.partition(":")
        return place.strip() or None if source.strip().lower() in ("auto", *SOURCES) else None
    zone = part.get("init_args", {}).get("zone") if isinstance(part, dict) else getattr(part, "zone", None)
    return zone if isinstance(zone, str) else None


def grid_from_spec(spec: dict[str, Any]) -> GridSignal:
    """Return the signal that a :meth:`GridSignal.spec` describes.

    Args:
        spec: ``{"class_path": "package.module.Class", "init_args": {...}}``.

    Raises:
        ValueError: If the spec is not of that form, or names no subclass of GridSignal.

    """
    path, arguments = spec.get("class_path"), spec.get("init_args", {})
    if not isinstance(path, str) or "." not in path or not isinstance(arguments, dict):
        raise ValueError(
            f"`grid` as a dict should hold `class_path` (a string) and `init_args` (a dict), got {spec!r}."
        )
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"`grid` names the class {path}, but there is no module {error.name}.") from error
    if not (isinstance(found, type) and issubclass(found, GridSignal)):
        raise ValueError(f"`grid` should name a subclass of lightning_green.grid.signal.GridSignal, {path} is not.")
    return found(**arguments)


def _from_string(text: str, zone: str | None) -> GridSignal | None:
    name, _, rest = text.partition(":")
    source, place = name.strip().lower(), rest.strip() or zone
    if source == "auto":
        from lightning_green.grid.auto import auto_grid

        return auto_grid(place)
    if source == "file" and rest:
        from lightning_green.grid.file import FileSignal

        return FileSignal(rest.strip(), zone=zone)
    if text.lower().endswith((".csv", ".parquet")):
        return TraceSignal(text, zone=zone)
    if source in SOURCES:
        if place is None and source != "neso":
            raise ValueError(f'`grid` should say the zone, "{source}:DE" for example, got {text!r}.')
        return named_source(source, place)
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"`grid` should be {_choices()}; got {text!r}.") from None
    return ConstantSignal(value, zone=zone)


def named_source(source: str, place: str | None) -> GridSignal:
    """Return the signal of the source named ``source`` (one of :data:`SOURCES`) for ``place``."""
    module, _, name = SOURCES[source].rpartition(".")
    cls = getattr(importlib.import_module(f"lightning_green.grid.{module}"), name)
    if source == "neso":  # it serves one country, whose regions have numbers
        region = (place or "GB").upper().removeprefix("GB").removeprefix("-")
        if not region:
            return cast("GridSignal", cls())
        return cast("GridSignal", cls(region=int(region)) if region.isdigit() else cls(postcode=region))
    return cast("GridSignal", cls(place))


def _chain(grid: Any, zone: str | None) -> GridSignal:
    from lightning_green.grid.chain import ChainSignal

    parts = [build_grid(part, zone if own_zone(part) is None else None) for part in grid]
    return ChainSignal(parts[0], fallback=parts[1:])


def _choices() -> str:
    return _CHOICES.format(sources=", ".join(sorted(SOURCES)))
