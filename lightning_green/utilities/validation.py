"""Argument checks. Each message contains the argument's name, the accepted values and the value received."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import ArrayLike, NDArray


def check_number(
    name: str,
    value: float,
    low: float = 0.0,
    high: float = math.inf,
    *,
    above_low: bool = False,
    unit: str = "",
    alternative: str = "",
) -> float:
    """Return ``value`` as a float if it is finite and in ``[low, high]`` (``(low, high]`` with ``above_low``).

    Args:
        name: The argument, for the message.
        value: The value to check.
        low: Lower limit.
        high: Upper limit.
        above_low: Whether ``low`` itself is excluded.
        unit: Unit of the number, for the message.
        alternative: A value that the caller accepts instead of a number, for the message.

    Raises:
        ValueError: If ``value`` is not such a number.

    """
    wanted = f"a number {'above' if above_low else 'of at least'} {low:g}"
    if high < math.inf:
        wanted += f" and at most {high:g}"
    wanted += f" {unit}" if unit else ""
    wanted += f" or {alternative}" if alternative else ""
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < low or number > high or (above_low and number == low):
        raise ValueError(f"`{name}` should be {wanted}, got {value!r}.")
    return number


def check_fraction(name: str, value: float, *, below_one: bool = False) -> float:
    """Return ``value`` as a float if it is in [0, 1], or in [0, 1) with ``below_one``.

    Raises:
        TypeError: If ``value`` is not a number.
        ValueError: If it is out of range or not finite.

    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"`{name}` should be a number, got {value!r}.")
    if not 0 <= value <= 1 or (below_one and value == 1):  # also refuses NaN
        raise ValueError(f"`{name}` should be a fraction in [0, {'1)' if below_one else '1]'}, got {value!r}.")
    return float(value)


def check_positive_int(name: str, value: int) -> int:
    """Return ``value`` if it is an integer of at least 1, or raise a ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` should be an integer of at least 1, got {value!r}.")
    return value


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``, or raise a ``ValueError`` that lists them."""
    if value not in choices:
        raise ValueError(f"`{name}` should be one of {', '.join(map(repr, choices))}, got {value!r}.")
    return value


def check_aware(name: str, value: datetime) -> datetime:
    """Return ``value`` if it is a datetime with a time zone."""
    if not isinstance(value, datetime):
        raise ValueError(f"`{name}` should be a datetime with a time zone, got {value!r}.")
    if value.utcoffset() is None:
        raise ValueError(f"`{name}` should have a time zone, got the naive {value.isoformat()}.")
    return value


def check_times(name: str, times: Sequence[datetime]) -> NDArray[np.float64]:
    """Return ``times`` as POSIX seconds if they are aware and strictly ascending."""
    for time in times:
        check_aware(name, time)
    seconds = np.array([time.timestamp() for time in times], dtype=np.float64)
    steps = np.diff(seconds)
    if np.any(steps <= 0):
        at = int(np.argmax(steps <= 0))
        raise ValueError(
            f"`{name}` should be in ascending order, got {times[at].isoformat()} before {times[at + 1].isoformat()}."
        )
    return seconds


def check_series(name: str, values: ArrayLike, length: int, of: str) -> NDArray[np.float64]:
    """Return ``values`` as a float array if it has ``length`` finite, non-negative entries."""
    array = np.array(values, dtype=np.float64)
    if array.shape != (length,):
        raise ValueError(f"`{name}` should have one entry for each of `{of}` ({length}), got the shape {array.shape}.")
    bad = ~np.isfinite(array) | (array < 0)
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"`{name}` should be finite and not negative, got {array[at]} at position {at}.")
    array.setflags(write=False)
    return array
