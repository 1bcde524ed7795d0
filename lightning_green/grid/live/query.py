"""Requests to a service and their parsed answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from lightning_green.grid.signal import Quality
from lightning_green.utilities.http.errors import ServiceError


@dataclass(frozen=True)
class Point:
    """One value.

    Args:
        time: Start of its interval, UTC.
        value: Carbon intensity in gCO2e/kWh.
        quality: ``"measured"``, ``"estimated"`` (by the source) or ``"forecast"``.

    """

    time: datetime
    value: float
    quality: Quality = "measured"


@dataclass(frozen=True)
class Answer:
    """The parsed answer to one request.

    Args:
        past: Measured or estimated values, ascending in time.
        forecast: Predicted values, ascending in time.
        issued_at: Time at which the forecast was made or the newest value was published; None if not given.
        zone: Zone that the answer names; None if it names none.

    """

    past: tuple[Point, ...] = ()
    forecast: tuple[Point, ...] = ()
    issued_at: datetime | None = None
    zone: str | None = None


@dataclass(frozen=True)
class Query:
    """One request and the parser of its answer. Creating a query sends nothing.

    Args:
        name: Short name for messages: ``"now"``, ``"history"``, ``"forecast"``.
        url: Address without a query string.
        every: Interval at which the data changes. The service is not asked more often.
        parse: Function from the decoded JSON body to an answer; raises a ServiceError for an unusable body.
        params: Query string. It must not contain a secret.
        identity: Cache key for a request whose address changes with time. Empty to use the address itself.
        optional: Whether the signal is complete without it, for example a forecast that a plan may lack.

    """

    name: str
    url: str
    every: timedelta
    parse: Callable[[Any], Answer]
    params: Mapping[str, str] = field(default_factory=dict)
    identity: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Failure:
    """A failed request.

    Args:
        name: Name of the query.
        error: Its error.
        optional: Whether the query is optional.

    """

    name: str
    error: ServiceError
    optional: bool = False


@dataclass(frozen=True)
class FetchResult:
    """The outcome of one round of requests.

    Args:
        answers: Answers, new or from the cache, each with the time it was fetched at.
        failures: Failed requests.
        clock_skew: This machine's clock minus the server's; None if unknown.
        interrupted: Whether the signal was closed before the round ended.

    """

    answers: tuple[tuple[Answer, datetime], ...] = ()
    failures: tuple[Failure, ...] = ()
    clock_skew: timedelta | None = None
    interrupted: bool = False
