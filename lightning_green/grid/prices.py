"""Electricity prices from a number or a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning_green.grid.providers.trace import ascending_rows
from lightning_green.planning.prices import PriceSeries

PriceLike = float | str | Path | PriceSeries
COLUMN = "price"


def build_prices(value: PriceLike, name: str = "price") -> PriceSeries:
    """Return electricity prices in money per kWh.

    Args:
        value: One price for all times, or the path of a CSV file with the columns ``datetime`` (start of the interval,
            ISO 8601 with ``Z`` or an offset, hourly or finer) and ``price``. Prices may be negative. An empty price, a
            missing row and the time outside the file are unknown.
        name: The argument, for messages.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the number is not finite, or the file has no price, unsorted, duplicate or naive times, or a
            value that is no number. The message contains the file and the line.
        TypeError: If ``value`` has another type.

    Examples:
        >>> build_prices(0.32).constant
        0.32

    """
    if isinstance(value, PriceSeries):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Path)):
        raise TypeError(f"`{name}` should be a price per kWh or the path of a CSV file, got {value!r}.")
    if isinstance(value, Path):
        return _read(value, name)
    try:
        price = float(value)
    except ValueError:
        return _read(Path(str(value)), name)
    if not math.isfinite(price):
        raise ValueError(f"`{name}` should be a finite price per kWh, got {value!r}.")
    return PriceSeries(constant=price)


def _read(path: Path, name: str) -> PriceSeries:
    path = path.expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(f"`{name}` should be a price per kWh or a CSV file that exists, got {str(path)!r}.")
    points = [(time, _price(path, where, raw)) for where, time, raw in ascending_rows(path, COLUMN)]
    if all(price is None for _, price in points):
        raise ValueError(f"{path} has no prices; it should contain at least one `datetime,{COLUMN}`.")
    return PriceSeries.from_points(points, f"prices {path.name}")


def _price(path: Path, where: str, raw: Any) -> float | None:
    """Return the price of a row; None if it is empty."""
    if raw is None or not str(raw).strip():
        return None
    try:
        price = float(raw)
    except ValueError:
        price = math.nan
    if not math.isfinite(price):
        raise ValueError(f"{path}, {where}: the price should be a number or empty, got {raw!r}.")
    return price
