"""Totals against what can be worked out by hand: integrals, phases, restarts, and the run that never waited."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.grid.series import Series
from lightning_green.ledger.baseline import counterfactual_gco2e, saving_percent
from lightning_green.ledger.totals import Account, Totals, measured_hold_power, measured_resume_hours
from tests.helpers.ledgers import events_of, total_of

START = datetime(2024, 5, 2, tzinfo=timezone.utc)
WATTS = 300.0
KIND = "average/lifecycle"


class Book:
    """Writes the events of a run that draws 300 W, one after another, as the ledger would hold them.

    A meter counts from nought in every process; so does this one.
    """

    def __init__(self, intensities, quality="measured"):
        """Take hourly intensities from ``START`` on."""
        self.series = Series([(START + timedelta(hours=n), value) for n, value in enumerate(intensities)])
        self.quality, self.records = quality, []
        self.at, self.attempt, self.joules, self.last = START, 0, 0.0, START
        self.now = {"state": "running", "phase": "training", "power": 1.0, "speed": 1.0}

    def write(self, event, **fields):
        intensity = self.series.mean(self.last, self.at)
        self.records.append(
            {
                "event": event,
                "node": "a",
                "attempt": self.attempt,
                "time_utc": self.at.isoformat(),
                "joules": {"gpu": {"value": self.joules, "quality": self.quality}},
                "intensity": None if intensity is None else {"value": intensity, "kind": KIND},
                **self.now,
                **fields,
            }
        )
        self.last = self.at

    def start(self, startup_hours=0.0):
        self.attempt, self.joules, self.last = self.attempt + 1, 0.0, self.at
        self.at += timedelta(hours=startup_hours)
        self.joules = WATTS * startup_hours * 3600
        self.now |= {"state": "running", "phase": "training"}
        self.write("started", startup_s=startup_hours * 3600)

    def work(self, hours, watts=WATTS, event="sample", **then):
        """Let time pass in the present state, write it, and go into the next one."""
        self.at += timedelta(hours=hours)
        self.joules += watts * hours * 3600
        self.now |= then
        self.write(event)

    def mean(self, start, end):
        return self.series.mean(*(datetime.fromtimestamp(at, timezone.utc) for at in (start, end)))


def test_emissions_are_the_integral_of_power_times_intensity():
    slope = [100.0 + 50.0 * hour for hour in range(5)]  # a step each hour: 100, 150, 200, 250
    book = Book(slope)
    book.start()
    for _ in range(8):
        book.work(0.5)
    totals = total_of(book.records)
    assert totals.kwh == pytest.approx(0.3 * 4)
    assert totals.grams() == pytest.approx(0.3 * (100 + 150 + 200 + 250))
    coarse = Book(slope)  # the mean of an interval is exact, so how often is written does not matter
    coarse.start()
    coarse.work(4.0)
    assert total_of(coarse.records).grams() == pytest.approx(totals.grams())


def test_the_facility_s_overhead_is_in_the_emissions_and_not_in_the_energy():
    book = Book([100.0] * 3)
    book.start()
    book.work(2.0)
    for record in book.records:
        record["pue"] = 1.5
    totals = total_of(book.records)
    assert totals.kwh == pytest.approx(0.6)
    assert totals.grams() == pytest.approx(90.0)


def test_energy_of_no_known_intensity_is_kept_apart():
    book = Book([100.0, 100.0])  # two hours are known
    book.start()
    for _ in range(3):
        book.work(1.0)
    totals = total_of(book.records)
    assert totals.grams() == pytest.approx(60.0)
    assert totals.unpriced_joules == pytest.approx(0.3 * 3.6e6)


def test_grams_of_two_kinds_are_not_added_up():
    book = Book([100.0] * 3)
    book.start()
    book.work(1.0)
    book.work(1.0)
    book.records[-1]["intensity"]["kind"] = "marginal/direct"
    totals = total_of(book.records)
    assert totals.grams() is None
    assert dict(totals.gco2e) == {KIND: pytest.approx(30.0), "marginal/direct": pytest.approx(30.0)}


def test_a_component_is_as_good_as_its_worst_reading_and_never_falls():
    book = Book([100.0] * 4)
    book.start()
    book.work(1.0)
    book.quality = "modelled"
    book.work(1.0)
    book.quality = "measured"
    book.joules = 0.0  # a counter that was reset
    book.write("sample")
    totals = total_of(book.records)
    assert totals.quality == {"gpu": "modelled"}
    assert totals.kwh == pytest.approx(0.6)


def test_each_phase_and_state_has_its_own_energy_and_time():
    book = Book([100.0] * 12)
    book.start(startup_hours=0.5)
    book.work(1.0, phase="validation", event="phase")
    book.work(0.25, phase="held", state="held", event="state")
    book.work(2.0, watts=90.0, phase="training", state="throttled", power=0.78, speed=0.9, event="state")
    book.work(1.0, watts=234.0, event="finished")
    totals = total_of(book.records)
    kwh = {phase: joules / 3.6e6 for phase, joules in totals.joules_by_phase.items()}
    expected = {"startup": 0.15, "training": 0.3 + 0.234, "validation": 0.075, "held": 0.18}
    assert kwh == pytest.approx(expected)
    assert totals.joules_by_state["held"] == pytest.approx(0.18 * 3.6e6)
    hours = {state: seconds / 3600 for state, seconds in totals.seconds_by_state.items()}
    assert hours == pytest.approx({"running": 1.75, "held": 2.0, "throttled": 1.0})
    assert totals.hours_waited == pytest.approx(2.0)


def left_and_came_back(event, hours_out=5.0):
    """Return a book with an hour of work, ``event``, some hours of nothing, and another hour of work."""
    book = Book([100.0] * 12)
    book.start(startup_hours=0.1)
    book.work(1.0, event="sample")
    if event is not None:
        book.work(0.0, event=event)
        book.work(0.0, event="sample")  # the last look at the totals, as a process that leaves takes it
    book.at += timedelta(hours=hours_out)
    book.start(startup_hours=0.2)
    book.work(1.0, event="finished")
    return book


def test_totals_are_cumulative_over_a_restart():
    totals = total_of(left_and_came_back("paused").records)
    assert totals.kwh == pytest.approx(0.3 * (0.1 + 1.0 + 0.2 + 1.0))
    assert totals.grams() == pytest.approx(100.0 * totals.kwh)
    assert totals.joules_by_phase["startup"] == pytest.approx(0.1 * WATTS * 3600)
    assert totals.joules_by_phase["restart"] == pytest.approx(0.2 * WATTS * 3600)
    assert (totals.exits, totals.attempts) == (1, 2)
    assert totals.hours_waited == pytest.approx(5.0)
    assert totals.elapsed_hours == pytest.approx(0.1 + 1.0 + 5.0 + 0.2 + 1.0)


@pytest.mark.parametrize("event", [None, "interrupted", "failed"])
def test_the_time_after_a_kill_is_not_waiting(event):
    totals = total_of(left_and_came_back(event).records)
    assert totals.exits == 0
    assert totals.hours_waited == 0.0
    assert totals.seconds_by_state["stopped"] == pytest.approx(5 * 3600)
    assert totals.kwh == pytest.approx(0.3 * 2.3)  # what was spent before a kill is spent


def test_what_comes_in_parts_comes_to_the_same():
    records = left_and_came_back("paused").records
    account = Account()
    for event in events_of(records):
        account.add(event)
    assert account.totals == total_of(records)


def test_run_now_does_the_same_work_at_the_first_start():
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


def test_run_now_has_no_restart_and_no_time_out():
    book = left_and_came_back("paused")
    totals = total_of(book.records)
    assert counterfactual_gco2e(totals, book.mean) == pytest.approx(100 * 0.3 * (0.1 + 1.0 + 1.0))


def test_run_now_is_at_full_power():
    book = Book([100.0] * 6)
    book.start()
    book.now |= {"state": "throttled", "power": 0.78, "speed": 0.9}
    book.records[-1] |= book.now
    book.work(2.0, watts=0.78 * WATTS, event="finished")
    totals = total_of(book.records)
    assert totals.kwh == pytest.approx(0.3 * 0.78 * 2.0)
    assert counterfactual_gco2e(totals, book.mean) == pytest.approx(100 * 0.3 * 1.8)  # the same steps in 1.8 hours


def test_run_now_is_not_known_where_an_intensity_is_not():
    book = Book([100.0])
    book.start()
    book.work(0.5)
    assert counterfactual_gco2e(total_of(book.records), book.mean) == pytest.approx(15.0)
    book.work(2.0)
    assert counterfactual_gco2e(total_of(book.records), book.mean) is None
    assert counterfactual_gco2e(Totals(), book.mean) is None


def test_a_saving_may_be_negative():
    assert saving_percent(110.0, 100.0) == pytest.approx(-10.0)
    assert saving_percent(0.0, 0.0) == 0.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 900), min_size=24, max_size=24),
    st.lists(st.floats(0.01, 2.0), min_size=1, max_size=10),
)
def test_a_run_that_never_waits_is_its_own_counterfactual(intensities, parts):
    book = Book(intensities)
    book.start()
    for hours in parts:
        book.work(hours)
    totals = total_of(book.records)
    assert counterfactual_gco2e(totals, book.mean) == pytest.approx(totals.grams(), rel=1e-6, abs=1e-6)


def test_the_power_while_held_is_measured_where_a_sensor_saw_it():
    def held(quality, hours):
        book = Book([100.0] * 6, quality)
        book.start()
        book.work(1.0, phase="held", state="held", event="state")
        book.work(hours, watts=60.0, phase="training", state="running", event="state")
        return total_of(book.records)

    assert measured_hold_power(held("measured", 1.0)) == pytest.approx(0.2)
    assert measured_hold_power(held("modelled", 1.0)) is None
    assert measured_hold_power(held("measured", 0.01)) is None  # 36 seconds are too few
    assert measured_hold_power(Totals()) is None


def test_the_price_of_leaving_is_measured_where_a_sensor_saw_it():
    totals = total_of(left_and_came_back("paused").records)
    mean_power = 0.3 * 2.3 / 2.3  # kW: what the restart drew counts as running
    assert measured_resume_hours(totals) == pytest.approx(0.2 * 0.3 / mean_power)
    assert measured_resume_hours(total_of(left_and_came_back(None).records)) is None
    modeled = left_and_came_back("paused")
    for record in modeled.records:
        record["joules"]["gpu"]["quality"] = "modelled"
    assert measured_resume_hours(total_of(modeled.records)) is None
