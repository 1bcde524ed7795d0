"""What a service said, once read; and the small readers that every parser is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from lightning_green.grid.errors import NoDataError
from lightning_green.grid.signal import Quality
from lightning_green.utilities.http.errors import UnreadableError

_EARLIEST = datetime(2000, 1, 1, tzinfo=timezone.utc)
_LATEST = datetime(2200, 1, 1, tzinfo=timezone.utc)
_HIGHEST = 100_000.0  # gCO2e/kWh; the dirtiest plant there is emits below 3,000


@dataclass(frozen=True)
class Point:
    """One value.

    Args:
        time: Start of its interval, UTC.
        value: Carbon intensity in gCO2e/kWh.
        quality: What it is worth.

    """

    time: datetime
    value: float
    quality: Quality = "measured"


@dataclass(frozen=True)
class Answer:
    """What one request brought.

    Args:
        past: Measured or estimated values, ascending in time.
        forecast: Predicted values, ascending in time.
        issued_at: When the forecast was made, or the newest value was published; None where the source does not say.
        zone: The zone that the source says it speaks of; None where it does not say.

    """

    past: tuple[Point, ...] = ()
    forecast: tuple[Point, ...] = ()
    issued_at: datetime | None = None
    zone: str | None = None


@dataclass(frozen=True)
class Query:
    """One request, and how to read what comes back. Pure: making one touches no network.

    Args:
        name: What is asked for: ``"now"``, ``"history"``, ``"forecast"``.
        url: Address without a query string.
        params: Query string. No secret is ever in it.
        identity: What stays the same while the address moves on with the time; the cache keeps one answer of each.
            Empty for the address itself.
        every: How often the data changes; it is not asked for more often.
        parse: Turns the JSON body into an answer, or raises a ServiceError.
        optional: Whether the signal is whole without it (a forecast that the plan may lack).

    """

    name: str
    url: str
    every: timedelta
    parse: Callable[[Any], Answer]
    params: Mapping[str, str] = field(default_factory=dict)
    identity: str = ""
    optional: bool = False


def mapping(body: Any) -> Mapping[str, Any]:
    """Return ``body`` if it is a JSON object."""
    if not isinstance(body, Mapping):
        raise UnreadableError(f"the answer should be a JSON object, it is {_kind(body)}")
    return body


def items(body: Any, *names: str) -> list[Mapping[str, Any]]:
    """Return the list of objects that ``body`` holds under the first of ``names`` that it has."""
    rows = body
    if names:
        found = mapping(body)
        rows = next((found[name] for name in names if name in found), None)
    if not isinstance(rows, list):
        raise UnreadableError(f"the answer has no list `{names[0] if names else 'of rows'}`")
    return [row for row in rows if isinstance(row, Mapping)]


def read_time(raw: Any) -> datetime | None:
    """Return an ISO 8601 time in UTC; a naive one is taken as UTC; None for anything else.

    Example::

        >>> read_time("2026-03-01T10:00Z").hour
        10

    """
    if not isinstance(raw, str) or not 10 <= len(raw) <= 40:
        return None
    text = raw.strip()
    if text.endswith(("Z", "z")):  # Python 3.10 reads no trailing Z
        text = text[:-1] + "+00:00"
    head, dot, tail = text.partition(".")
    if dot:  # nor a fraction of other than 3 or 6 digits
        digits = next((at for at, character in enumerate(tail) if not character.isdigit()), len(tail))
        text = head + tail[digits:]
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return time if _EARLIEST <= time < _LATEST else None


def read_unix(raw: Any) -> datetime | None:
    """Return a time in seconds since the epoch as a datetime in UTC, or None."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not 946684800 <= raw < 7258118400:
        return None
    return datetime.fromtimestamp(raw, timezone.utc)


def read_value(raw: Any, factor: float = 1.0) -> float | None:
    """Return a carbon intensity in gCO2e/kWh, or None for null and for what cannot be one."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    try:
        value = float(raw) * factor
    except OverflowError:
        return None
    return value if math.isfinite(value) and 0.0 <= value <= _HIGHEST else None


def ordered(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return ``points`` sorted; of two at the same time the later in the answer stays."""
    by_time = {point.time: point for point in points}
    return tuple(by_time[time] for time in sorted(by_time))


def whole(answer: Answer) -> Answer:
    """Return ``answer`` if it has a value at all."""
    if not answer.past and not answer.forecast:
        raise NoDataError("the answer has no usable value")
    return answer


def shown(raw: Any) -> str:
    """Return a server's own word as an error message may carry it: short, plain ASCII, and no more than one line."""
    text = raw if isinstance(raw, str) else str(raw) if isinstance(raw, (int, float)) else _kind(raw)
    return "".join(character for character in text[:30] if character.isascii() and character.isprintable())


def floor_time(time: datetime, step: timedelta) -> datetime:
    """Return the start of the interval of ``step`` that ``time`` lies in."""
    width = step.total_seconds()
    return datetime.fromtimestamp(time.timestamp() // width * width, timezone.utc)


def minutes(time: datetime) -> str:
    """Return ``time`` as ``2026-03-01T10:30Z``."""
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")


def _kind(body: Any) -> str:
    kinds = {list: "a list", dict: "an object", str: "a string", type(None): "null"}
    return kinds.get(type(body), "a number")
