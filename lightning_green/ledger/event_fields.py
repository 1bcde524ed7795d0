"""How the fields of an event are read from JSON and written to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any

Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""Function that reads a value from JSON, and function that writes it."""


def _unchanged(value: Any) -> Any:
    return value


MAX_NUMBER = 10**15
"""Largest number in an event. Sums of such numbers are finite."""
MAX_COUNT = 100_000
"""Highest number of a fit, a node or a start: each of them takes memory."""
_LATEST = datetime(9998, 12, 31, tzinfo=timezone.utc)
_EARLIEST = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read_float(value: Any, low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> float:
    """Return a number of JSON as a float; raises ValueError if it is none, not finite, or out of range."""
    if isinstance(value, (int, float)) and low <= value <= high:  # false for NaN
        return float(value)
    raise ValueError(f"expected a number from {low:g} to {high:g}, got {value!r:.40}")


def read_int(value: Any, high: int = MAX_NUMBER) -> int:
    """Return a number of JSON as an integer from 0; raises ValueError if it is none, or larger than ``high``."""
    if type(value) is int and 0 <= value <= high:
        return value
    return int(read_float(value, 0, high))


def read_time(value: Any) -> datetime:
    """Return a time in ISO 8601; raises ValueError if it has no offset, or is not between 1970 and 9998."""
    time = datetime.fromisoformat(value)
    if time.tzinfo is None or not _EARLIEST <= time <= _LATEST:
        raise ValueError(f"expected a time with an offset, got {value!r:.40}")
    return time


def read_text(value: Any) -> str:
    """Return a text of JSON; raises ValueError if it is something else."""
    if isinstance(value, str):
        return value
    raise ValueError(f"expected a text, got {value!r:.40}")


def _list_of(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read_list(value: Any) -> list[Any]:
        if isinstance(value, list):
            return [read(one) for one in value]
        raise ValueError(f"expected a list, got {value!r:.40}")

    return read_list


def _read_mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError(f"expected an object, got {value!r:.40}")


_CODECS: dict[str, Codec] = {
    "str": (read_text, _unchanged),
    "int": (read_int, _unchanged),
    "float": (read_float, _unchanged),
    "bool": (bool, _unchanged),
    "datetime": (read_time, datetime.isoformat),
    "list[str]": (_list_of(read_text), list),
    "list[int]": (_list_of(lambda value: int(read_float(value))), list),
    "Mapping[str, Any]": (_read_mapping, dict),
}
_OWN_FIELDS: dict[type, dict[str, Codec]] = {}


def own_fields(kind: type, base: type) -> dict[str, Codec]:
    """Return the fields that the dataclass ``kind`` adds to the dataclass ``base``, with their codecs."""
    if kind not in _OWN_FIELDS:
        common = {one.name for one in fields(base)}
        own = [one for one in fields(kind) if one.name not in common]
        _OWN_FIELDS[kind] = {one.name: _CODECS[str(one.type).removesuffix(" | None")] for one in own}
    return _OWN_FIELDS[kind]
