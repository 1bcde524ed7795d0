"""How the fields of an event are read from JSON and written to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any

Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""Function that reads a value from JSON, and function that writes it."""


def _unchanged(value: Any) -> Any:
    return value


_CODECS: dict[str, Codec] = {
    "str": (str, _unchanged),
    "int": (int, _unchanged),
    "float": (float, _unchanged),
    "bool": (bool, _unchanged),
    "datetime": (datetime.fromisoformat, datetime.isoformat),
    "list[str]": (list, list),
    "list[int]": (list, list),
    "Mapping[str, Any]": (dict, dict),
}
_OWN_FIELDS: dict[type, dict[str, Codec]] = {}


def own_fields(kind: type, base: type) -> dict[str, Codec]:
    """Return the fields that the dataclass ``kind`` adds to the dataclass ``base``, with their codecs."""
    if kind not in _OWN_FIELDS:
        common = {one.name for one in fields(base)}
        own = [one for one in fields(kind) if one.name not in common]
        _OWN_FIELDS[kind] = {one.name: _CODECS[str(one.type).removesuffix(" | None")] for one in own}
    return _OWN_FIELDS[kind]
