"""Electricity prices from a number or a file."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_green.grid.providers.trace import csv_rows, parse_row_time
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
    points: list[tuple[datetime, float | None]] = []
    for where, raw_time, raw_price, *_ in csv_rows(path, COLUMN, ""):
        time = parse_row_time(path, where, raw_time)
        if points and time <= points[-1][0]:
            problem = "occurs twice" if time == points[-1][0] else "is earlier than the row before it"
            raise ValueError(f"{path}, {where}: the time {raw_time} {problem}; sort the rows, one for each time.")
        points.append((time, _price(path, where, raw_price)))
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
