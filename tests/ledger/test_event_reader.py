"""Each event as JSON and back."""

import json
from dataclasses import fields
from datetime import datetime, timezone

import pytest

from lightning_green.energy.meter import Energy
from lightning_green.ledger import events
from lightning_green.ledger.event_reader import event_from_json
from lightning_green.ledger.events import (
    LEDGER_VERSION,
    Decision,
    Event,
    Finished,
    Paused,
    Started,
    StateEvent,
    UnknownEvent,
)
from lightning_green.ledger.measurement import Intensity, Measurement

AT = datetime(2024, 5, 1, tzinfo=timezone.utc)
VALUES = {
    "str": "text",
    "int": 3,
    "float": 0.5,
    "bool": True,
    "datetime": AT,
    "list[str]": ["a", "b"],
    "list[int]": [1, 2],
    "Mapping[str, Any]": {"a": {"b": [1]}},
}
KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
KINDS = [kind for kind in KINDS if kind not in (Event, StateEvent, UnknownEvent)]
MEASURED = Measurement(
    {"gpu": Energy(3.5, "measured"), "cpu": Energy(1.0, "modelled")},
    Intensity(200.0, "average/lifecycle", "test", "DE", 210.0, AT.isoformat(), "measured"),
    pue=1.2,
    power=0.8,
    speed=0.9,
    data_wait_s=4.0,
)


def full(kind, **more):
    """Return an event with a value in every field."""
    common = {one.name for one in fields(Event)}
    own = {one.name: VALUES[str(one.type).removesuffix(" | None")] for one in fields(kind) if one.name not in common}
    header = {"seq": 7, "time_utc": AT.isoformat(), "mono_s": 1.5, "node": "n", "pid": 9, "attempt": 2}
    state = {"phase": "training", "state": "running", "measured": MEASURED, "global_step": 5, "fit": 1, "reason": "why"}
    return kind(**header, **state, **own, **more)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_event_survives_json(kind):
    event = full(kind)
    record = json.loads(json.dumps(event.to_json()))
    assert record["event"] == kind.name
    assert record["v"] == LEDGER_VERSION
    assert event_from_json(record) == event
    empty = event_from_json({"event": kind.name, "time_utc": AT.isoformat()})
    assert type(empty) is kind
    assert event_from_json(empty.to_json()) == empty


def test_every_kind_has_a_name_of_its_own():
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names) == 19


def test_unknown_fields_are_kept():
    record = full(Decision).to_json() | {"of_tomorrow": [1, {"a": None}]}
    assert event_from_json(record).extra == {"of_tomorrow": [1, {"a": None}]}
    assert event_from_json(record).to_json() == record


def test_unknown_event_is_kept_as_it_is():
    record = {"seq": 1, "event": "of tomorrow", "new": [1]}
    event = event_from_json(record)
    assert (type(event), event.kind, event.seq) == (UnknownEvent, "of tomorrow", 1)
    assert event.to_json() == record


def test_state_events_of_other_nodes_have_another_name():
    record = full(Started, node_rank=1).to_json()
    assert (record["event"], record["node_rank"]) == ("node_started", 1)
    assert event_from_json(record) == full(Started, node_rank=1)


def test_version_1_counts_energy_over_all_fits():
    record = {"event": "finished", "time_utc": AT.isoformat(), "fit": 3}
    assert event_from_json(record).accounted_fit == 0
    assert event_from_json(record | {"v": 2}).accounted_fit == 3
    assert event_from_json(record | {"fit": None}).accounted_fit is None


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"event": "paused"},
        {"event": "paused", "time_utc": "yesterday"},
        {"event": "paused", "time_utc": AT.isoformat(), "until": "tomorrow"},
        {"event": "sample", "time_utc": AT.isoformat(), "joules": {"gpu": {"value": 1.0, "quality": "guessed"}}},
        {"event": "sample", "time_utc": AT.isoformat(), "joules": {"gpu": 1.0}},
        {"event": "sample", "time_utc": AT.isoformat(), "joules": {}, "intensity": {"value": 1.0}},
        {"event": "sample", "time_utc": AT.isoformat(), "attempt": "first"},
    ],
)
def test_what_is_not_an_event_raises(record):
    with pytest.raises(ValueError, match="not an event of a ledger"):
        event_from_json(record)


def test_events_are_immutable():
    event = full(Finished)
    with pytest.raises(AttributeError):
        event.reason = "another"
    assert event.time == AT
    assert full(Paused).until == AT
