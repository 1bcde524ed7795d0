"""Parsing of the ``throttle=`` argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_green.planning.job import Level
from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.registry import ACTUATORS, actuator_class

ThrottleLike = str | Level | Actuator | Sequence[str | Level | Actuator] | None

FULL = Level(1.0, 1.0)
_CHOICES = (
    'None, "auto", a level such as "0.78:0.90" (power:speed), an Actuator or its name ({names}), or a list of levels '
    "and actuators"
)


@dataclass(frozen=True)
class ThrottleRequest:
    """The parsed ``throttle=`` argument.

    Args:
        auto: Whether to select an actuator automatically, because the user names none.
        levels: Stated levels; empty if the levels are to be measured.
        actuators: Actuators that the user names.

    """

    auto: bool
    levels: tuple[Level, ...]
    actuators: tuple[Actuator, ...]


def parse_throttle(throttle: ThrottleLike) -> ThrottleRequest:
    """Parse the ``throttle=`` argument.

    Args:
        throttle: ``"auto"`` to measure the levels of an actuator that is selected automatically; one or several stated
            levels, as text (``"0.78:0.90"``, power:speed) or as ``Level``; one or
            several actuators, or their registered names, to measure their levels; or actuators and stated levels.

    Raises:
        TypeError: If ``throttle`` has an unsupported type.
        ValueError: If a level cannot be parsed or does not lower the power.

    Examples:
        >>> [str(level) for level in parse_throttle(["0.78:0.90", "0.6:0.7"]).levels]
        ['0.78:0.9', '0.6:0.7']

    """
    if throttle == "auto":
        return ThrottleRequest(True, (), ())
    items = [throttle] if isinstance(throttle, (str, Level, Actuator)) else throttle
    if not isinstance(items, Sequence) or not items:
        raise TypeError(f"`throttle` should be {_choices()}, got {throttle!r}.")
    levels: list[Level] = []
    actuators: list[Actuator] = []
    for item in items:
        if isinstance(item, Actuator):
            actuators.append(item)
        elif isinstance(item, str) and item.strip().lower() in ACTUATORS:
            actuators.append(actuator_class(item.strip().lower())())
        elif isinstance(item, (str, Level)):
            levels.append(_parse_level(item))
        else:
            raise TypeError(f"`throttle` should be {_choices()}, got {throttle!r}.")
    return ThrottleRequest(not actuators, tuple(dict.fromkeys(levels)), tuple(actuators))


def _parse_level(item: str | Level) -> Level:
    try:
        level = Level.parse(item) if isinstance(item, str) else item
    except ValueError as error:
        raise ValueError(f"`throttle` should be {_choices()}. {error}") from None
    if level.power >= 1.0:
        raise ValueError(f"`throttle` should contain levels below full power only, got {level}.")
    return level


def _choices() -> str:
    return _CHOICES.format(names=", ".join(ACTUATORS))
