"""From what a user writes as ``throttle=`` to actuators and operating points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_green.planning.job import Level
from lightning_green.throttle.actuator import Actuator

ThrottleLike = str | Level | Actuator | Sequence[str | Level | Actuator] | None

FULL = Level(1.0, 1.0)
_CHOICES = 'None, "auto", a level such as "0.78:0.90" (power:speed), an Actuator, or a list of levels or of actuators'


@dataclass(frozen=True)
class ThrottleRequest:
    """What a user asks of the throttle.

    Args:
        auto: Whether the devices are looked for, because none is named.
        levels: Operating points that the user states; without any, they are measured.
        actuators: What sets them.

    """

    auto: bool
    levels: tuple[Level, ...]
    actuators: tuple[Actuator, ...]


def parse_throttle(throttle: ThrottleLike) -> ThrottleRequest:
    """Return what ``throttle`` asks for.

    Args:
        throttle: ``"auto"`` to measure what this machine lets us set; a level that is stated, as text
            (``"0.78:0.90"``, power:speed) or a :class:`~lightning_green.planning.job.Level`, or several; an actuator
            or several, to measure their levels; an actuator with levels, to set these with it.

    Raises:
        TypeError: If it is of another type.
        ValueError: If a level cannot be read, or saves no power.

    Example::

        >>> [str(level) for level in parse_throttle(["0.78:0.90", "0.6:0.7"]).levels]
        ['0.78:0.9', '0.6:0.7']

    """
    if throttle == "auto":
        return ThrottleRequest(True, (), ())
    given = [throttle] if isinstance(throttle, (str, Level, Actuator)) else throttle
    if not isinstance(given, Sequence) or not given:
        raise TypeError(f"`throttle` should be {_CHOICES}, got {throttle!r}.")
    levels: list[Level] = []
    actuators: list[Actuator] = []
    for item in given:
        if isinstance(item, Actuator):
            actuators.append(item)
        elif isinstance(item, (str, Level)):
            levels.append(_check_level(item))
        else:
            raise TypeError(f"`throttle` should be {_CHOICES}, got {throttle!r}.")
    return ThrottleRequest(not actuators, tuple(dict.fromkeys(levels)), tuple(actuators))


def _check_level(item: str | Level) -> Level:
    try:
        level = Level.parse(item) if isinstance(item, str) else item
    except ValueError as error:
        raise ValueError(f"`throttle` should be {_CHOICES}. {error}") from None
    if level.power >= 1.0:
        raise ValueError(f"`throttle` should hold levels below full power, got {level}.")
    return level
