"""Settings that an actuator offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FRACTIONS = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Fractions of the original setting that an actuator offers by default."""


@dataclass(frozen=True)
class Setting:
    """One setting of an actuator.

    Args:
        name: Display name, such as ``"250 W"``.
        value: Value in the unit of the actuator.

    """

    name: str
    value: float | str


def steps_below(original: float, lowest: float, fractions: Sequence[float] = FRACTIONS) -> list[float]:
    """Return ``fractions`` of ``original`` in descending order, without values below ``lowest``.

    Examples:
        >>> steps_below(700.0, 400.0)
        [630.0, 560.0, 490.0, 420.0]

    """
    values = (round(original * fraction, 6) for fraction in sorted(fractions, reverse=True))
    return [value for value in values if value >= lowest]


def power_settings(
    original: float, lowest: float, requested: Sequence[float] | None, fractions: Sequence[float]
) -> list[Setting]:
    """Return the original power limit and the lower limits that the device accepts, in descending order.

    Args:
        original: Limit before any change, in W.
        lowest: Lowest limit that the device accepts, in W.
        requested: Limits to offer, in W; None for ``fractions`` of ``original``.
        fractions: Fractions of ``original``.

    Examples:
        >>> [setting.name for setting in power_settings(300.0, 150.0, [100, 200, 250], ())]
        ['300 W', '250 W', '200 W']

    """
    limits = steps_below(original, lowest, fractions) if requested is None else sorted(requested, reverse=True)
    lower = [watts for watts in limits if lowest <= watts < original]
    return [Setting(f"{watts:g} W", watts) for watts in (original, *lower)]


def check_positive(name: str, values: Sequence[float] | None) -> list[float] | None:
    """Return ``values`` as floats, or None for None.

    Raises:
        ValueError: If ``values`` is empty or contains a number that is not above 0.

    """
    if values is None:
        return None
    if isinstance(values, (str, bytes)) or not list(values) or not all(float(value) > 0.0 for value in values):
        raise ValueError(f"`{name}` should be a list of numbers above 0, got {values!r}.")
    return [float(value) for value in values]
