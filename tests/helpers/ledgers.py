"""Ledgers as JSON: what other programs see of them."""

from lightning_green.ledger.account import total
from lightning_green.ledger.event_reader import event_from_json
from lightning_green.ledger.events import LEDGER_VERSION
from lightning_green.ledger.ledger import last_state_event, read_ledger


def read_records(folder):
    """Return the events of a ledger as JSON."""
    return [event.to_json() for event in read_ledger(folder)]


def events_of(records):
    """Return the events that JSON objects hold."""
    return [event_from_json(record) for record in records]


def make_event(name, **fields):
    """Return an event without a header, to be appended to a ledger."""
    return event_from_json({"event": name, "time_utc": "2024-01-01T00:00:00+00:00", "v": LEDGER_VERSION, **fields})


def total_of(records):
    """Return the totals of events as JSON."""
    return total(events_of(records))


def last_state_of(records):
    """Return the last state event of events as JSON, itself as JSON."""
    last = last_state_event(events_of(records))
    return None if last is None else last.to_json()
