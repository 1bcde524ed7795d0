"""Each event as JSON and back."""

import json
import time

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


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York", "not a zone"])
def test_times_do_not_depend_on_the_time_zone_of_the_machine(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        event = event_from_json({"event": "sample", "time_utc": "2024-05-02T12:00:00+02:00"})
        assert event.timestamp == 1714644000.0
        with pytest.raises(ValueError, match="not an event"):
            event_from_json({"event": "sample", "time_utc": "2024-05-02T12:00:00"})
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "fields",
    [
        {"time_utc": "yesterday"},
        {"time_utc": "9999-12-31T23:59:59-14:00"},
        {"time_utc": "0001-01-01T00:00:00+14:00"},
        {"seq": None},
        {"attempt": "two"},
        {"attempt": 10**400},
        {"global_step": float("inf")},
        {"fit": 10**9},
        {"node_rank": -1},
        {"phase": ["training"]},
        {"joules": {"cpu": {"value": float("nan"), "quality": "measured"}}},
        {"joules": {"cpu": {"value": 1.0, "quality": ["measured"]}}},
        {"joules": {}, "power": 0},
        {"joules": {}, "intensity": {"value": "much", "kind": "average/direct"}},
        {"joules": {}, "intensity": {"value": 1.0, "kind": "average/direct", "zone": ["DE"]}},
        {"event": "paused", "until": "2026-01-01T00:00:00"},
        {"event": "started", "startup_s": 1e300},
        {"event": "started", "script": "train.py"},
        {"event": "decision", "deadline": 5},
    ],
    ids=str,
)
def test_odd_value_is_refused(fields):
    with pytest.raises(ValueError, match="not an event of a ledger"):
        event_from_json({"event": "sample", "time_utc": AT.isoformat()} | fields)


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
