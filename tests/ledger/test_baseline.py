"""The run-now baseline against figures computed by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.ledger.baseline import counterfactual_gco2e, saving_percent
from lightning_green.ledger.totals import Totals
from tests.helpers.event_book import WATTS, Book, left_and_came_back
from tests.helpers.ledgers import total_of


def test_baseline_moves_the_work_to_the_first_start():
    dirty_then_clean = [600.0] * 4 + [50.0] * 8
    book = Book(dirty_then_clean)
    book.start()
    book.work(1.0, phase="held", state="held", event="state")
    book.work(3.0, watts=90.0, phase="training", state="running", event="state")
    book.work(2.0, event="finished")
    totals = total_of(book.records)
    assert totals.grams() == pytest.approx(0.3 * 600 + 0.27 * 600 + 0.6 * 50)
    run_now = counterfactual_gco2e(totals, book.mean)
    assert run_now == pytest.approx(0.3 * 3 * 600)  # three hours in a row, and nothing for holding
    assert saving_percent(totals.grams(), run_now) == pytest.approx(100 * (540 - 372) / 540)


def test_baseline_has_no_restart_and_no_exit():
    book = left_and_came_back("paused")
    totals = total_of(book.records)
    assert counterfactual_gco2e(totals, book.mean) == pytest.approx(100 * 0.3 * (0.1 + 1.0 + 1.0))


def test_baseline_runs_at_full_power():
    book = Book([100.0] * 6)
    book.start()
    book.now |= {"state": "throttled", "power": 0.78, "speed": 0.9}
    book.records[-1] |= book.now
    book.work(2.0, watts=0.78 * WATTS, event="finished")
    totals = total_of(book.records)
    assert totals.kwh == pytest.approx(0.3 * 0.78 * 2.0)
    assert counterfactual_gco2e(totals, book.mean) == pytest.approx(100 * 0.3 * 1.8)  # the same steps in 1.8 hours


def test_baseline_is_unknown_if_an_intensity_is():
    book = Book([100.0])
    book.start()
    book.work(0.5)
    assert counterfactual_gco2e(total_of(book.records), book.mean) == pytest.approx(15.0)
    book.work(2.0)
    assert counterfactual_gco2e(total_of(book.records), book.mean) is None
    assert counterfactual_gco2e(Totals(), book.mean) is None


def test_saving_may_be_negative():
    assert saving_percent(110.0, 100.0) == pytest.approx(-10.0)
    assert saving_percent(0.0, 0.0) == 0.0


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
    assert counterfactual_gco2e(totals, book.mean) == pytest.approx(totals.grams(), rel=1e-6, abs=1e-6)
