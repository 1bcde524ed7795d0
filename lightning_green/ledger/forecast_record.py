"""The forecast of a decision in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_green.ledger.event_fields import read_float

_MAX_VALUES = 200


def forecast_record(seconds: Sequence[float], values: Sequence[float]) -> dict[str, list[float]] | None:
    """Return a forecast in the form of the ledger; None for an empty one.

    Args:
        seconds: Start of each interval in seconds after the decision, ascending.
        values: Carbon intensity of each interval in gCO2e/kWh. The last one ends when the plan does.

    """
    if not values:
        return None
    return {"seconds": [round(one) for one in seconds[:_MAX_VALUES]], "values": list(values[:_MAX_VALUES])}


def read_forecast(record: Mapping[str, Any] | None) -> list[tuple[float, float]]:
    """Return the intervals of a forecast in a ledger as (seconds after the decision, gCO2e/kWh).

    Empty if there is none, or if it was damaged.
    """
    try:
        pairs = zip((record or {})["seconds"], (record or {})["values"], strict=True)
        found = [(read_float(start), read_float(value)) for start, value in pairs]
    except (KeyError, TypeError, ValueError):
        return []
    is_ascending = all(before[0] < after[0] for before, after in zip(found, found[1:], strict=False))
    return found[:_MAX_VALUES] if is_ascending else []
