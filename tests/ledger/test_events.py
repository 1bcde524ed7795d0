"""The classes of the events."""

import pytest

from lightning_green.ledger.event_reader import event_from_json
from lightning_green.ledger.events import Finished, Paused, Sample, Started
from tests.helpers.full_events import AT, KINDS, full


def test_every_kind_has_a_name_of_its_own():
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names) == 23


def test_state_events_of_other_nodes_have_another_name():
    record = full(Started, node_rank=1).to_json()
    assert (record["event"], record["node_rank"]) == ("node_started", 1)
    assert event_from_json(record) == full(Started, node_rank=1)


def test_version_1_counts_energy_over_all_fits():
    record = {"event": "finished", "time_utc": AT.isoformat(), "fit": 3}
    assert event_from_json(record).accounted_fit == 0
    assert event_from_json(record | {"v": 2}).accounted_fit == 3
    assert event_from_json(record | {"fit": None}).accounted_fit is None


def test_events_are_immutable():
    event = full(Finished)
    with pytest.raises(AttributeError):
        event.reason = "another"
    assert event.time == AT
    assert full(Paused).until == AT


def test_fields_that_do_not_apply_are_left_out_of_the_json():
    record = Paused(time_utc=AT.isoformat()).to_json()
    left_out = {"phase", "state", "joules", "global_step", "node_rank", "until", "job", "grid", "saving"}
    assert left_out.isdisjoint(record)
    assert (record["event"], record["fit"], record["reason"]) == ("paused", 0, "")


def test_events_of_no_state_have_the_same_name_on_every_node():
    assert full(Sample, node_rank=1).to_json()["event"] == "sample"
