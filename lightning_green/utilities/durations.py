"""Durations as users write them: ``"36h"``, ``"90m"``, ``"1d12h"`` or a ``timedelta``."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)")


def parse_duration(value: str | timedelta, argument: str = "duration") -> timedelta:
    """Return ``value`` as a non-negative ``timedelta``.

    Args:
        value: A ``timedelta``, or a string of numbers with the units ``d``, ``h``, ``m`` (or ``min``) and ``s``.
        argument: Name of the argument in error messages.

    Raises:
        TypeError: If ``value`` is neither a string nor a ``timedelta``.
        ValueError: If ``value`` cannot be read, is negative, or is not finite.

    Examples:
        >>> parse_duration("1d12h")
        datetime.timedelta(days=1, seconds=43200)
        >>> parse_duration("90m")
        datetime.timedelta(seconds=5400)

    """
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise ValueError(f"`{argument}` should not be negative, got {value!r}.")
        return value
    if not isinstance(value, str):
        raise TypeError(f'`{argument}` should be a string such as "36h" or a timedelta, got {value!r}.')
    text = value.strip().lower()
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise ValueError(f'`{argument}` should be a duration such as "36h", "90m" or "1d12h", got {value!r}.')
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError:
        raise ValueError(f"`{argument}` should be shorter than {timedelta.max.days} days, got {value!r}.") from None


def format_duration(seconds: float) -> str:
    """Return ``seconds`` as readable text, in at most two units.

    Examples:
        >>> format_duration(5400)
        '1 h 30 min'
        >>> format_duration(42)
        '42 s'

    """
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    if seconds < 90:
        return f"{sign}{seconds:.0f} s"
    minutes = round(seconds / 60)
    days, minutes = divmod(minutes, 1440)
    hours, minutes = divmod(minutes, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    shown = [f"{amount} {unit}" for amount, unit in parts if amount][:2]
    return sign + " ".join(shown)
