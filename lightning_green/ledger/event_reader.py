"""Read the events of a ledger from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from lightning_green.ledger.event_fields import MAX_COUNT, own_fields, read_float, read_int, read_text, read_time
from lightning_green.ledger.events import (
    AllocationKept,
    BetweenFits,
    BudgetChecked,
    CheckpointFailed,
    CheckpointSaved,
    Decision,
    DevicesIdle,
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
    Validated,
    Warned,
)
from lightning_green.ledger.measurement import FIELDS, Measurement
from lightning_green.utilities.text import printable

_BY_NAME: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (
        *(
            Started,
            Finished,
            Paused,
            Interrupted,
            Failed,
            Ended,
            BetweenFits,
            DevicesIdle,
            AllocationKept,
            Sample,
            PhaseChanged,
            StateChanged,
        ),
        *(Decision, CheckpointSaved, CheckpointFailed, GridChanged, MeterProblem, Warned, HistoryMissing),
        *(PrecisionFallback, NonfiniteLoss, Validated, BudgetChecked),
    )
}

_MAX_STARTUP_SECONDS = 1e8  # a start cannot lie before the year 1966

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
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"not an event of a ledger ({type(error).__name__}: {error}): {record!r:.200}") from error


def _from_json(record: Mapping[str, Any]) -> Event:
    name, rank = read_text(record["event"]), read_int(record.get("node_rank", 0), MAX_COUNT)
    kind = _BY_NAME.get(name.removeprefix("node_") if rank else name)
    common: dict[str, Any] = {
        "seq": read_int(record.get("seq", 0)),
        "time_utc": read_text(record.get("time_utc", "")),
        "mono_s": read_float(record.get("mono_s", 0.0)),
        "node": printable(read_text(record.get("node", ""))),
        "pid": read_int(record.get("pid", 0)),
        "attempt": read_int(record.get("attempt", 0), MAX_COUNT),
        "v": read_int(record.get("v", 1)),
        "node_rank": rank,
    }
    if kind is None:
        with suppress(ValueError):
            read_time(common["time_utc"])
            return UnknownEvent(**common, kind=name, extra=dict(record))
        common["time_utc"] = ""
        return UnknownEvent(**common, kind=name, extra=dict(record))
    read_time(record["time_utc"])
    codecs = own_fields(kind, Event)
    own = {key: decode(record[key]) for key, (decode, _) in codecs.items() if record.get(key) is not None}
    if "startup_s" in own:
        read_float(own["startup_s"], -_MAX_STARTUP_SECONDS, _MAX_STARTUP_SECONDS)
    step, fit = record.get("global_step"), record.get("fit", 0)
    phase, state = record.get("phase"), record.get("state")
    measured, known = None, _KNOWN
    if "joules" in record:
        measured, known = Measurement.from_json(record), _KNOWN_WITH_MEASUREMENT
    return kind(
        **common,
        **own,
        phase=None if phase is None else read_text(phase),
        state=None if state is None else read_text(state),
        measured=measured,
        global_step=None if step is None else read_int(step),
        fit=None if fit is None else read_int(fit, MAX_COUNT),
        reason=printable(read_text(record.get("reason", ""))),
        extra={key: value for key, value in record.items() if key not in known and key not in codecs},
    )
