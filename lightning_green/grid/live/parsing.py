"""Functions that parsers of JSON bodies are built from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from lightning_green.grid.errors import NoDataError
from lightning_green.grid.live.query import Answer, Point
from lightning_green.grid.signal import Quality
from lightning_green.utilities.http.errors import UnreadableError

_EARLIEST = datetime(2000, 1, 1, tzinfo=timezone.utc)
_LATEST = datetime(2200, 1, 1, tzinfo=timezone.utc)
_HIGHEST = 100_000.0  # gCO2e/kWh; the dirtiest power plants emit less than 3,000


def parse_object(body: Any) -> Mapping[str, Any]:
    """Return ``body`` if it is a JSON object.

    Raises:
        UnreadableError: If it is anything else.

    """
    if not isinstance(body, Mapping):
        raise UnreadableError(f"the answer should be a JSON object, got {_kind(body)}")
    return body


def parse_list(body: Any, *names: str) -> list[Mapping[str, Any]]:
    """Return a list of JSON objects.

    Args:
        body: The list, or an object that contains it.
        names: Keys of the list, in order of preference; none if ``body`` itself is the list.

    Raises:
        UnreadableError: If there is no such list.

    """
    rows = body
    if names:
        found = parse_object(body)
        rows = next((found[name] for name in names if name in found), None)
    if not isinstance(rows, list):
        raise UnreadableError(f"the answer has no list `{names[0] if names else 'of rows'}`")
    return [row for row in rows if isinstance(row, Mapping)]


def parse_time(raw: Any) -> datetime | None:
    """Return an ISO 8601 time in UTC; naive times are taken as UTC; None for anything else.

    Examples:
        >>> parse_time("2026-03-01T10:00Z").hour
        10

    """
    if not isinstance(raw, str) or not 10 <= len(raw) <= 40:
        return None
    text = raw.strip()
    if text.endswith(("Z", "z")):  # Python 3.10 does not parse a trailing Z
        text = text[:-1] + "+00:00"
    head, dot, tail = text.partition(".")
    if dot:  # Python 3.10 parses fractions of 3 or 6 digits only
        digits = next((at for at, character in enumerate(tail) if not character.isdigit()), len(tail))
        text = head + tail[digits:]
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return time if _EARLIEST <= time < _LATEST else None


def parse_unix_time(raw: Any) -> datetime | None:
    """Return a time in seconds since the epoch as a datetime in UTC, or None."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not 946684800 <= raw < 7258118400:
        return None
    return datetime.fromtimestamp(raw, timezone.utc)


def parse_value(raw: Any, factor: float = 1.0) -> float | None:
    """Return a carbon intensity in gCO2e/kWh; None for null and for impossible values.

    Args:
        raw: Decoded JSON.
        factor: Factor from the unit of ``raw`` to gCO2e/kWh.

    """
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    try:
        value = float(raw) * factor
    except OverflowError:
        return None
    return value if math.isfinite(value) and 0.0 <= value <= _HIGHEST else None


def collect_points(rows: Iterable[tuple[datetime | None, float | None, Quality]]) -> tuple[Point, ...]:
    """Return the points of ``rows`` of time, value and quality in ascending order, without rows that lack one."""
    return sort_points(
        Point(time, value, quality) for time, value, quality in rows if time is not None and value is not None
    )


def sort_points(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return ``points`` in ascending order; of several with the same time, the last one is kept."""
    by_time = {point.time: point for point in points}
    return tuple(by_time[time] for time in sorted(by_time))


def require_points(answer: Answer) -> Answer:
    """Return ``answer`` if it has at least one value.

    Raises:
        NoDataError: If it has none.

    """
    if not answer.past and not answer.forecast:
        raise NoDataError("the answer has no usable value")
    return answer


def truncate_text(raw: Any) -> str:
    """Return text of a server for an error message: at most 30 printable ASCII characters."""
    text = raw if isinstance(raw, str) else str(raw) if isinstance(raw, (int, float)) else _kind(raw)
    return "".join(character for character in text[:30] if character.isascii() and character.isprintable())


def floor_time(time: datetime, step: timedelta) -> datetime:
    """Return the start of the interval of length ``step`` that contains ``time``."""
    width = step.total_seconds()
    return datetime.fromtimestamp(time.timestamp() // width * width, timezone.utc)


def format_minutes(time: datetime) -> str:
    """Return ``time`` in the form ``2026-03-01T10:30Z``."""
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")


def _kind(body: Any) -> str:
    kinds = {list: "a list", dict: "an object", str: "a string", type(None): "null"}
    return kinds.get(type(body), "a number")
