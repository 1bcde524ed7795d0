"""Carbon intensities of several intervals in one event of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from lightning_green.ledger.event_fields import read_float, read_time

MAX_VALUES = 1000


def series_record(since: datetime, seconds: Sequence[float], values: Sequence[float | None]) -> dict[str, Any] | None:
    """Return intensities in the form of the ledger; None if none is known.

    Args:
        since: Time that ``seconds`` count from.
        seconds: Start of each interval in seconds, ascending. An interval ends at the next start.
        values: Carbon intensity of each interval in gCO2e/kWh; None where it is unknown.

    """
    if all(value is None for value in values):
        return None
    starts = [round(one, 3) for one in seconds[:MAX_VALUES]]
    return {"since": since.isoformat(), "seconds": starts, "values": list(values[:MAX_VALUES])}


def read_series(record: Mapping[str, Any] | None) -> list[tuple[float, float | None]]:
    """Return the intervals of ``series_record`` as (start in seconds since the epoch, gCO2e/kWh or None).

    Empty if there are none, or if the record is damaged.

    Examples:
        >>> record = series_record(datetime.fromisoformat("1970-01-01T00:01:00+00:00"), [0, 60], [300.0, None])
        >>> read_series(record)
        [(60.0, 300.0), (120.0, None)]

    """
    if not record:
        return []
    try:
        since = read_time(record["since"]).timestamp()
        starts = [since + read_float(second) for second in record["seconds"][:MAX_VALUES]]
        values = [None if value is None else read_float(value) for value in record["values"][:MAX_VALUES]]
    except (KeyError, TypeError, ValueError, OverflowError):
        return []
    is_ascending = len(starts) == len(values) and all(before < after for before, after in pairwise(starts))
    return list(zip(starts, values, strict=True)) if is_ascending else []
