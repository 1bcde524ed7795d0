"""The run-now baseline against figures computed by hand."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.ledger.baseline import run_now_baselines, saving_percent
from lightning_green.ledger.totals import Totals
from tests.helpers.event_book import KIND, WATTS, Book, left_and_came_back
from tests.helpers.ledgers import total_of


def baseline(records, mean=None):
    """Return the baseline of the only kind of signal."""
    at = None if mean is None else lambda place, start, end: mean(start, end)
    (found,) = run_now_baselines(total_of(records), at).values()
    return found


def test_baseline_moves_the_work_to_the_first_start():
    dirty_then_clean = [600.0] * 4 + [50.0] * 8
    book = Book(dirty_then_clean)
    book.start()
    book.work(1.0, phase="held", state="held", event="state")
    book.work(3.0, watts=90.0, phase="training", state="running", event="state")
    book.work(2.0, event="finished")
    totals = total_of(book.records)
    assert totals.grams() == pytest.approx(0.3 * 600 + 0.27 * 600 + 0.6 * 50)
    run_now = baseline(book.records, book.mean).grams
    assert run_now == pytest.approx(0.3 * 3 * 600)  # three hours in a row, and nothing for holding
    assert saving_percent(totals.grams(), run_now) == pytest.approx(100 * (540 - 372) / 540)


def test_baseline_has_no_restart_and_no_exit():
    book = left_and_came_back("paused")
    assert baseline(book.records, book.mean).grams == pytest.approx(100 * 0.3 * (0.1 + 1.0 + 1.0))


def test_kill_and_the_restart_after_it_are_no_saving():
    book = left_and_came_back(None)  # killed, and started again five hours later
    found = baseline(book.records, book.mean)
    assert found.grams == pytest.approx(100 * 0.3 * (0.1 + 1.0 + 0.2 + 1.0))
    assert found.saving_pct == pytest.approx(0.0, abs=1e-9)


def test_baseline_runs_at_full_power():
    book = Book([100.0] * 6)
    book.start()
    book.now |= {"state": "throttled", "power": 0.78, "speed": 0.9}
    book.records[-1] |= book.now
    book.work(2.0, watts=0.78 * WATTS, event="finished")
    totals = total_of(book.records)
    assert totals.kwh == pytest.approx(0.3 * 0.78 * 2.0)
    assert baseline(book.records, book.mean).grams == pytest.approx(100 * 0.3 * 1.8)  # the same steps in 1.8 hours


def test_baseline_is_that_of_the_known_part():
    book = Book([100.0])
    book.start()
    book.work(0.5)
    assert baseline(book.records, book.mean).grams == pytest.approx(15.0)
    book.work(2.0)  # of which an hour and a half is unknown
    found = baseline(book.records, book.mean)
    assert (found.grams, found.actual, found.known_share) == pytest.approx((15.0, 15.0, 0.2))
    assert run_now_baselines(Totals()) == {}


def test_hours_that_only_the_run_has_recorded_are_known():
    book = Book([600.0] * 2 + [50.0] * 8)
    book.start()
    book.work(2.0, phase="held", state="held", event="state")
    book.work(2.0, phase="training", state="running", event="state")
    book.work(3.0, event="finished")
    known = baseline(book.records, lambda start, end: None)  # two of the three hours lie in recorded ones of 50
    assert known.known_share == pytest.approx(1.0)
    assert known.grams == pytest.approx(0.3 * (2 * 600 + 3 * 50))


def test_work_whose_intensity_without_waiting_is_unknown_is_left_out_with_its_share():
    book = Book([600.0] * 12)
    book.start()
    book.work(1.0, event="paused")
    book.at += timedelta(hours=5)
    book.start()
    book.work(3.0, event="finished")
    found = baseline(book.records)  # the hours of the exit are not recorded
    assert found.known_share == pytest.approx(0.25)
    assert (found.grams, found.actual) == pytest.approx((180.0, 180.0))


def place(zone, value, source="trace"):
    return {"intensity": {"value": value, "kind": KIND, "zone": zone, "source": source}}


@pytest.mark.parametrize("moved", [{"zone": "FR", "value": 50.0}, {"zone": "DE", "value": 50.0, "source": "other"}])
def test_change_of_zone_or_source_is_no_saving(moved):
    book = Book([])
    book.start()
    book.records[-1] |= place("DE", 400.0)
    book.work(1.0)
    book.records[-1] |= place("DE", 400.0)
    book.at += timedelta(hours=1)  # stopped
    book.start()
    book.records[-1] |= place(**moved)
    book.work(1.0, event="finished")
    book.records[-1] |= place(**moved)

    def mean(asked, start, end):
        return moved["value"] if (asked.zone, asked.source) == (moved["zone"], moved.get("source", "trace")) else None

    (found,) = run_now_baselines(total_of(book.records), mean).values()
    assert found.grams == pytest.approx(found.actual) == pytest.approx(0.3 * 450.0)
    assert (found.saving_pct, found.known_share) == pytest.approx((0.0, 1.0))


def test_uncertainty_contains_what_was_learned_since():
    book = Book([100.0] * 4)
    book.start()
    book.work(2.0, event="finished")
    assert baseline(book.records, book.mean).saving_std_pct == 0.0
    assert baseline(book.records, lambda start, end: 110.0).saving_std_pct == pytest.approx(10.0)  # revised


def test_saving_may_be_negative():
    assert saving_percent(110.0, 100.0) == pytest.approx(-10.0)
    assert saving_percent(0.0, 0.0) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 900), min_size=24, max_size=24),
    st.lists(st.floats(0.01, 2.0), min_size=1, max_size=10),
)
def test_run_without_waiting_is_its_own_baseline(intensities, parts):
    book = Book(intensities)
    book.start()
    for hours in parts:
        book.work(hours)
    totals = total_of(book.records)
    found = baseline(book.records, book.mean)
    assert found.grams == pytest.approx(totals.grams(), rel=1e-6, abs=1e-6)
    assert found.actual == pytest.approx(totals.grams())
