"""Read the events of a ledger from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from lightning_green.ledger.event_fields import own_fields
from lightning_green.ledger.events import (
    BetweenFits,
    CheckpointFailed,
    CheckpointSaved,
    Decision,
    Ended,
    Event,
    Failed,
    Finished,
    GridChanged,
    HistoryMissing,
    Interrupted,
    MeterProblem,
    NonfiniteLoss,
    Paused,
    PhaseChanged,
    PrecisionFallback,
    Sample,
    Started,
    StateChanged,
    UnknownEvent,
    Warned,
)
from lightning_green.ledger.measurement import FIELDS, Measurement
from lightning_green.utilities.text import printable

_BY_NAME: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (
        *(Started, Finished, Paused, Interrupted, Failed, Ended, BetweenFits, Sample, PhaseChanged, StateChanged),
        *(Decision, CheckpointSaved, CheckpointFailed, GridChanged, MeterProblem, Warned, HistoryMissing),
        *(PrecisionFallback, NonfiniteLoss),
    )
}

# fields of every event's JSON, and those of an event with a measurement
_KNOWN = {*(one.name for one in fields(Event)), "event"} - {"measured", "extra"}
_KNOWN_WITH_MEASUREMENT = _KNOWN | set(FIELDS)


def event_from_json(record: Mapping[str, Any]) -> Event:
    """Return the event that a line of a ledger holds.

    Args:
        record: The line as JSON.

    Raises:
        ValueError: If it is not an event, or lacks a field that its kind requires.

    Examples:
        >>> event_from_json({"event": "between_fits", "time_utc": "2024-05-01T00:00:00+00:00", "between_joules": 3})
        ... # doctest: +ELLIPSIS
        BetweenFits(seq=0, time_utc='2024-05-01T00:00:00+00:00', ..., between_joules=3.0)

    """
    try:
        return _from_json(record)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not an event of a ledger ({type(error).__name__}: {error}): {record!r}") from error


def _from_json(record: Mapping[str, Any]) -> Event:
    name, rank = str(record["event"]), int(record.get("node_rank", 0))
    kind = _BY_NAME.get(name.removeprefix("node_") if rank else name)
    common: dict[str, Any] = {
        "seq": int(record.get("seq", 0)),
        "time_utc": str(record.get("time_utc", "")),
        "mono_s": float(record.get("mono_s", 0.0)),
        "node": printable(str(record.get("node", ""))),
        "pid": int(record.get("pid", 0)),
        "attempt": int(record.get("attempt", 0)),
        "v": int(record.get("v", 1)),
        "node_rank": rank,
    }
    if kind is None:
        return UnknownEvent(**common, kind=name, extra=dict(record))
    datetime.fromisoformat(record["time_utc"])
    codecs = own_fields(kind, Event)
    own = {key: decode(record[key]) for key, (decode, _) in codecs.items() if record.get(key) is not None}
    step, fit = record.get("global_step"), record.get("fit", 0)
    measured, known = None, _KNOWN
    if "joules" in record:
        measured, known = Measurement.from_json(record), _KNOWN_WITH_MEASUREMENT
    return kind(
        **common,
        **own,
        phase=record.get("phase"),
        state=record.get("state"),
        measured=measured,
        global_step=None if step is None else int(step),
        fit=None if fit is None else int(fit),
        reason=printable(str(record.get("reason", ""))),
        extra={key: value for key, value in record.items() if key not in known and key not in codecs},
    )
