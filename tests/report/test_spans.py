"""Time spans of the states of a run."""

from lightning_green.report.spans import Span, spans
from tests.helpers.ledgers import events_of
from tests.helpers.run_records import at, make_record, run_records


def spans_of(records):
    return spans(events_of(records))


def test_spans_have_no_gaps():
    assert spans_of(run_records()) == [
        Span(at(0), at(1), "running"),
        Span(at(1), at(3), "held"),
        Span(at(3), at(4), "running"),
        Span(at(4), at(10), "out"),
        Span(at(10), at(12), "running"),
    ]


def test_time_after_a_kill_is_stopped():
    records = [
        make_record(0, "started"),
        make_record(2, "sample"),
        make_record(5, "started", attempt=2),
        make_record(6, "finished", attempt=2),
    ]
    assert [span.state for span in spans_of(records)] == ["running", "stopped", "running"]


def test_second_node_is_ignored():
    second = {"node": "b", "node_rank": 1}
    records = [
        make_record(0, "node_started", **second),
        make_record(0, "started"),
        make_record(1, "state", state="held", **second),
        make_record(2, "finished"),
    ]
    assert spans_of(records) == [Span(at(0), at(2), "running")]


def test_no_start_has_no_spans():
    assert spans_of([]) == []
    assert spans_of([make_record(0, "sample")]) == []
