"""From what a user writes as ``grid=`` to a signal, and from a signal's spec back to it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from lightning_green.grid.constant import ConstantSignal
from lightning_green.grid.function import FunctionSignal
from lightning_green.grid.signal import GridSignal
from lightning_green.grid.trace import TraceSignal
from lightning_green.grid.typical_day import TypicalDay

GridLike = GridSignal | str | float | dict[str, Any] | Callable[[datetime], float] | None

_CHOICES = (
    'a GridSignal, a number of gCO2e/kWh, the path of a .csv or .parquet trace, "typical:DE", a callable from a '
    "datetime to gCO2e/kWh, a dict with class_path and init_args, or None for energy alone"
)


def build_grid(grid: GridLike, zone: str | None = None) -> GridSignal | None:
    """Return the signal that ``grid`` stands for; None for None, which means energy and no emissions.

    Args:
        grid: A signal, a number, a path, a string such as ``"typical:DE"``, a callable, or a spec.
        zone: Grid zone, for those of the above that do not say it themselves.

    Raises:
        TypeError: If ``grid`` is of a type that means nothing here.
        ValueError: If a string or a spec means nothing here.

    Example::

        >>> build_grid(381.0, zone="DE").describe()
        'constant 381 gCO2e/kWh, average/lifecycle, zone DE'

    """
    if grid is None or isinstance(grid, GridSignal):
        return grid
    if isinstance(grid, dict):
        return grid_from_spec(grid)
    if isinstance(grid, str):
        return _from_string(grid.strip(), zone)
    if isinstance(grid, (int, float)) and not isinstance(grid, bool):
        return ConstantSignal(grid, zone=zone)
    if callable(grid) and not isinstance(grid, type):
        return FunctionSignal(grid, zone=zone)
    raise TypeError(f"`grid` should be {_CHOICES}; got {grid!r}.")


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


def _from_string(text: str, zone: str | None) -> GridSignal:
    if text.lower().endswith((".csv", ".parquet")):
        return TraceSignal(text, zone=zone)
    name, _, rest = text.partition(":")
    if name.lower() == "typical" and (rest or zone):
        return TypicalDay(rest or str(zone))
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"`grid` should be {_CHOICES}; got {text!r}.") from None
    return ConstantSignal(value, zone=zone)
