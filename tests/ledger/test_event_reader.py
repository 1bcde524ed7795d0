"""Each event as JSON and back."""

import json

import pytest

from lightning_green.ledger.event_reader import event_from_json
from lightning_green.ledger.events import LEDGER_VERSION, Decision, UnknownEvent
from tests.helpers.full_events import AT, KINDS, full


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


def test_unknown_fields_are_kept():
    record = full(Decision).to_json() | {"of_tomorrow": [1, {"a": None}]}
    assert event_from_json(record).extra == {"of_tomorrow": [1, {"a": None}]}
    assert event_from_json(record).to_json() == record


def test_unknown_event_is_kept_as_it_is():
    record = {"seq": 1, "event": "of tomorrow", "new": [1]}
    event = event_from_json(record)
    assert (type(event), event.kind, event.seq) == (UnknownEvent, "of tomorrow", 1)
    assert event.to_json() == record


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
