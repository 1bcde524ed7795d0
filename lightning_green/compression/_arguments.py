"""Checks of arguments that several files share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase


def check_fraction(name: str, value: float, *, below_one: bool = False) -> float:
    """Return ``value`` as a float in [0, 1], or in [0, 1) with ``below_one``.

    Raises:
        TypeError: If ``value`` is not a number.
        ValueError: If it is out of the range or not finite.

    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"`{name}` should be a number, got {value!r}.")
    upper = "1)" if below_one else "1]"
    if not math.isfinite(value) or value < 0 or value > 1 or (below_one and value == 1):
        raise ValueError(f"`{name}` should be a fraction in [0, {upper}, got {value!r}.")
    return float(value)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ``ValueError`` that lists the choices unless ``value`` is one of them."""
    if value not in choices:
        raise ValueError(f"`{name}` should be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_positive_int(name: str, value: int) -> None:
    """Raise a ``ValueError`` unless ``value`` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` should be an integer of at least 1, got {value!r}.")


def check_weight_bits(value: int | None) -> None:
    """Raise a ``ValueError`` unless ``value`` is 7, 8 or None."""
    if value not in (None, 7, 8) or isinstance(value, bool):
        raise ValueError(f"`weight_bits` should be 7, 8 or None, got {value!r}.")


def matching(name: str, patterns: Sequence[str], candidates: Sequence[str]) -> set[str]:
    """Return the candidates that a pattern matches: itself, a module that contains it, or a shell pattern.

    Raises:
        ValueError: If a pattern matches nothing; the message names the argument ``name`` and what could be matched.

    """
    found: set[str] = set()
    for pattern in patterns:
        hits = {c for c in candidates if c.startswith(f"{pattern}.") or fnmatchcase(c, pattern)}
        if not hits:
            some = ", ".join(list(candidates)[:8]) + (", ..." if len(candidates) > 8 else "")
            raise ValueError(f"`{name}` should match something, but {pattern!r} matches none of: {some or 'nothing'}.")
        found |= hits
    return found
