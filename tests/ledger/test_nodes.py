"""Totals of several nodes against what can be worked out by hand, and the reading of ledgers that grow."""

import random
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.ledger.baseline import run_now_baselines
from lightning_green.ledger.events import HistoryMissing
from lightning_green.ledger.ledger import Ledger, node_name
from lightning_green.ledger.nodes import Node, OtherNodes
from lightning_green.ledger.power import full_power, measured_hold_power, measured_resume_hours
from lightning_green.report.spans import spans
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.event_book import START, Book
from tests.helpers.ledgers import events_of, make_event, total_of

INTENSITIES = [100.0, 500.0, 200.0, 50.0, 300.0, 100.0]


STATES = ("started", "finished", "paused", "interrupted", "failed")


def of_node(book, rank, seconds_late=0.0):
    """Return a book's events as those of a node that does not read the grid and whose clock is late."""
    return [
        {
            **record,
            "node": f"n.{rank}",
            "node_rank": rank,
            "intensity": None,
            "event": f"node_{record['event']}" if record["event"] in STATES else record["event"],
            "time_utc": (datetime.fromisoformat(record["time_utc"]) + timedelta(seconds=seconds_late)).isoformat(),
        }
        for record in book.records
    ]


def sorted_as_read(*records):
    return sorted((one for some in records for one in some), key=lambda one: (one["attempt"], one["time_utc"]))


def a_run(watts, every=0.25):
    """Return a book: an hour of work, two held, one out, half an hour of restart, and another hour of work."""
    book = Book(INTENSITIES)
    book.start()
    for _ in range(int(1 / every)):
        book.work(every, watts=watts)
    book.records[-1] |= {"state": "held", "phase": "held"}
    book.now |= {"state": "held", "phase": "held"}
    for _ in range(int(2 / every)):
        book.work(every, watts=0.2 * watts)
    book.records[-1]["event"] = "paused"
    book.at += timedelta(hours=1)
    book.start(0.5)
    book.records[-1]["joules"]["gpu"]["value"] = book.joules = watts * 0.5 * 3600
    book.work(1.0, watts=watts, event="finished")
    for record in book.records:
        record["nodes"] = 2
    return book


def test_energy_is_summed_and_time_counts_once():
    first, second = a_run(300.0), a_run(500.0, every=0.5)
    totals = total_of(sorted_as_read(first.records, of_node(second, 1)))
    alone = total_of(first.records)
    assert totals.kwh == pytest.approx(alone.kwh * 8 / 3)
    joules = {number: node.joules for number, node in totals.by_node.items()}
    assert joules == pytest.approx({0: alone.kwh * 3.6e6, 1: alone.kwh * 3.6e6 * 5 / 3})
    assert totals.grams() == pytest.approx(alone.grams() * 8 / 3)
    assert totals.unpriced_joules == 0.0
    assert totals.seconds_by_state == alone.seconds_by_state
    assert (totals.exits, totals.attempts, totals.nodes) == (1, 2, 2)
    assert totals.hours_waited == alone.hours_waited == pytest.approx(3.0)
    assert totals.elapsed_hours == alone.elapsed_hours
    assert totals.joules_by_state["held"] == pytest.approx(0.2 * 800 * 2 * 3600)
    both = events_of(sorted_as_read(first.records, of_node(second, 1)))
    assert spans(both) == spans(events_of(first.records))


def test_power_is_that_of_all_nodes():
    totals = total_of(sorted_as_read(a_run(300.0).records, of_node(a_run(500.0), 1)))
    assert full_power(totals) == pytest.approx(800.0)
    assert measured_hold_power(totals) == pytest.approx(0.2)
    assert measured_resume_hours(totals) == pytest.approx(0.5)
    unheard = total_of([*a_run(300.0).records, *of_node(a_run(500.0), 1)[:1]])
    assert full_power(unheard) == pytest.approx(600.0)  # taken to be like the first
    assert measured_hold_power(unheard) == pytest.approx(0.2)


def run_now(totals, book):
    """Return the emissions without waiting, all of which are known."""
    (found,) = run_now_baselines(totals, lambda place, start, end: book.mean(start, end)).values()
    assert found.known_share == 1.0
    return found.grams


def test_baseline_runs_all_nodes_side_by_side():
    first, second = a_run(300.0), a_run(500.0, every=0.5)
    totals = total_of(sorted_as_read(first.records, of_node(second, 1)))
    assert run_now(totals, first) == pytest.approx(0.8 * (100 + 500))
    # a node that a kill robbed of its last sample, and one that is new: both start with the others again
    robbed = [one for one in of_node(second, 1) if one["attempt"] == 2]
    totals = total_of(sorted_as_read(first.records, robbed))
    assert run_now(totals, first) == pytest.approx(0.3 * (100 + 500) + 0.5 * 500)


def test_order_of_the_nodes_events_does_not_matter():
    first, second = a_run(300.0), a_run(500.0, every=0.5)
    of_second = of_node(second, 1, seconds_late=-7.0)
    expected = total_of(sorted_as_read(first.records, of_second))
    shuffle = random.Random(1)
    for _ in range(20):
        rest, mixed = [list(first.records), list(of_second)], []
        while any(rest):  # each node in order, and no attempt before the other is through with the one before
            attempt = min(one[0]["attempt"] for one in rest if one)
            mixed.append(shuffle.choice([one for one in rest if one and one[0]["attempt"] == attempt]).pop(0))
        totals = total_of(mixed)
        assert totals.kwh == pytest.approx(expected.kwh)
        assert totals.grams() == pytest.approx(expected.grams())
        assert run_now(totals, first) == pytest.approx(run_now(expected, first))


def test_energy_after_the_last_event_of_rank_zero_has_its_last_intensity():
    first, second = Book(INTENSITIES), Book(INTENSITIES)
    for book, hours in ((first, 1.5), (second, 3.0)):
        book.start()
        book.work(hours)
    totals = total_of(sorted_as_read(first.records, of_node(second, 1)))
    mean = (100 + 0.5 * 500) / 1.5
    assert totals.grams() == pytest.approx(0.3 * 1.5 * mean + 0.3 * 3.0 * mean)  # one interval of the first node
    nothing = total_of(of_node(second, 1))
    assert nothing.grams() is None
    assert nothing.unpriced_joules == pytest.approx(0.9 * 3.6e6)


def test_without_a_grid_all_energy_is_unpriced():
    first = Book([])
    first.start()
    first.work(1.0)
    totals = total_of(sorted_as_read(first.records, of_node(first, 1)))
    assert totals.grams() is None
    assert totals.unpriced_joules == pytest.approx(0.6 * 3.6e6)


# -- the ledgers of other nodes ---------------------------------------------------------------------------------------


def test_nodes_of_one_machine_have_different_names():
    assert Node().name == Node(0, 1, 3).name == node_name()
    assert {Node(rank, 2).name for rank in (0, 1)} == {f"{node_name()}.0", f"{node_name()}.1"}


def line(ledger, joules, rank=1):
    energy = {"other": {"value": joules, "quality": "modelled"}}
    return ledger.append(make_event("sample", joules=energy, node_rank=rank))


def test_new_lines_are_read_once_and_a_torn_line_when_complete(tmp_path):
    clock = SimulatedClock(START, seconds_per_batch=10)
    old = Ledger(tmp_path, clock, 1, "n.1")
    line(old, 5.0)
    others = OtherNodes(tmp_path, attempt=2)
    line(old, 6.0)  # of the start before
    own, second, third = (Ledger(tmp_path, clock, 2, f"n.{rank}") for rank in (0, 1, 2))
    line(own, 1.0, rank=0)
    line(second, 0.0)
    line(third, 0.0, rank=2)
    third.append(HistoryMissing(reason="no energy in it"))
    assert [(one.node, one.measured.total_joules) for one in others.new_events()] == [("n.1", 0.0), ("n.2", 0.0)]
    assert others.new_events() == []
    clock.advance("batch")
    written = line(second, 2000.0)
    whole = second.path.read_bytes()
    second.path.write_bytes(whole[:-20])
    assert others.new_events() == []
    second.path.write_bytes(whole)
    (event,) = others.new_events()
    assert event == written
    assert others.watts == {1: pytest.approx(200.0)}


def test_unreadable_ledger_is_reported_and_read_again(tmp_path):
    others = OtherNodes(tmp_path, attempt=1)
    (tmp_path / "ledger.n.1.jsonl").mkdir()
    assert others.new_events() == []
    assert "ledger.n.1.jsonl cannot be read" in others.problem
    (tmp_path / "ledger.n.1.jsonl").rmdir()
    line(Ledger(tmp_path, SimulatedClock(START), 1, "n.1"), 3.0)
    assert len(others.new_events()) == 1


def test_clock_never_goes_back():
    clock = SimulatedClock(datetime(2024, 5, 1, tzinfo=timezone.utc))
    began = clock.time()
    clock.go_to(began + 60.0)
    clock.go_to(began)
    assert clock.time() == began + 60.0
