"""Base classes of the signals that ask a service: polling, cache, staleness, failure reports.

A provider needs the names exported here and nothing else of this package.
"""

from lightning_green.grid.live.authentication import Authentication, TokenAuthentication
from lightning_green.grid.live.parsing import (
    collect_points,
    floor_time,
    format_minutes,
    parse_list,
    parse_object,
    parse_time,
    parse_unix_time,
    parse_value,
    require_points,
    sort_points,
    truncate_text,
)
from lightning_green.grid.live.polled_signal import MAX_AGE, PolledSignal
from lightning_green.grid.live.query import Answer, Failure, FetchResult, Point, Query
from lightning_green.grid.live.signal import LiveSignal

__all__ = [
    "MAX_AGE",
    "Answer",
    "Authentication",
    "Failure",
    "FetchResult",
    "LiveSignal",
    "Point",
    "PolledSignal",
    "Query",
    "TokenAuthentication",
    "collect_points",
    "floor_time",
    "format_minutes",
    "parse_list",
    "parse_object",
    "parse_time",
    "parse_unix_time",
    "parse_value",
    "require_points",
    "sort_points",
    "truncate_text",
]
