"""Totals against what can be worked out by hand: integrals, phases, restarts, and the run that never waited."""

from datetime import timedelta

import pytest

from lightning_green.ledger.account import Account
from lightning_green.ledger.power import full_power, measured_hold_power, measured_resume_hours
from lightning_green.ledger.totals import Totals
from tests.helpers.event_book import KIND, WATTS, Book, left_and_came_back
from tests.helpers.ledgers import events_of, total_of


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


def test_pue_multiplies_emissions_and_not_energy():
    book = Book([100.0] * 3)
    book.start()
    book.work(2.0)
    for record in book.records:
        record["pue"] = 1.5
    totals = total_of(book.records)
    assert totals.kwh == pytest.approx(0.6)
    assert totals.grams() == pytest.approx(90.0)


def test_energy_without_intensity_is_unpriced():
    book = Book([100.0, 100.0])  # two hours are known
    book.start()
    for _ in range(3):
        book.work(1.0)
    totals = total_of(book.records)
    assert totals.grams() == pytest.approx(60.0)
    assert totals.unpriced_joules == pytest.approx(0.3 * 3.6e6)


def test_emissions_of_two_kinds_are_not_added():
    book = Book([100.0] * 3)
    book.start()
    book.work(1.0)
    book.work(1.0)
    book.records[-1]["intensity"]["kind"] = "marginal/direct"
    totals = total_of(book.records)
    assert totals.grams() is None
    assert dict(totals.gco2e) == {KIND: pytest.approx(30.0), "marginal/direct": pytest.approx(30.0)}


def test_component_has_its_worst_quality_and_never_decreases():
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


def test_energy_and_time_by_phase_and_state():
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
def test_time_after_a_kill_is_not_waiting(event):
    totals = total_of(left_and_came_back(event).records)
    assert totals.exits == 0
    assert totals.hours_waited == 0.0
    assert totals.seconds_by_state["stopped"] == pytest.approx(5 * 3600)
    assert totals.kwh == pytest.approx(0.3 * 2.3)  # what was spent before a kill is spent


def test_adding_events_one_by_one_gives_the_same_totals():
    records = left_and_came_back("paused").records
    account = Account()
    for event in events_of(records):
        account.add(event)
    assert account.totals == total_of(records)


def test_hold_power_is_measured_only_by_sensors():
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


def test_resume_cost_is_measured_only_by_sensors():
    totals = total_of(left_and_came_back("paused").records)
    mean_power = 0.3 * 2.3 / 2.3  # kW: what the restart drew counts as running
    assert measured_resume_hours(totals) == pytest.approx(0.2 * 0.3 / mean_power)
    assert measured_resume_hours(total_of(left_and_came_back(None).records)) is None
    modeled = left_and_came_back("paused")
    for record in modeled.records:
        record["joules"]["gpu"]["quality"] = "modelled"
    assert measured_resume_hours(total_of(modeled.records)) is None


def test_cost_of_an_exit_is_the_energy_of_the_devices():
    """Saving for an exit and the restart after it count, as measured and not times PUE; a kill does not."""
    book = Book([100.0] * 24)
    book.start()
    book.work(1.0, phase="restart")
    book.work(0.1, event="paused")
    book.at += timedelta(hours=3)
    book.start(startup_hours=0.2)
    book.work(1.0)
    book.at += timedelta(hours=1)
    book.start(startup_hours=0.4)  # after a kill
    totals = total_of([{**record, "pue": 2.0} for record in book.records])
    assert totals.exit_joules == pytest.approx(0.3 * (0.1 + 0.2) * 3.6e6)
    assert totals.hours_waited == pytest.approx(3.0)
    assert totals.seconds_by_state["stopped"] == pytest.approx(3600.0)


def test_idle_devices_add_energy_that_a_run_without_waiting_does_not_have():
    book = Book([100.0] * 24)
    book.start()
    book.work(1.0)
    book.work(0.0, event="paused")
    book.at += timedelta(hours=3)
    book.start()
    book.work(0.0, event="devices_idle")
    book.work(1.0)
    intensity = {"value": 50.0, "kind": KIND, "source": "trace", "zone": "ZZ", "quality": None}
    added = {"idle_joules": 3.6e5, "idle_intensity": intensity, "pue": 1.5}
    records = [record | added if record["event"] == "devices_idle" else record for record in book.records]
    with_idle, without = total_of(records), total_of(book.records)
    assert (
        with_idle.joules["unmetered"] == with_idle.joules_by_phase["held"] == with_idle.joules_by_state["out"] == 3.6e5
    )
    assert with_idle.kwh == pytest.approx(without.kwh + 0.1)
    assert sum(with_idle.gco2e.values()) == pytest.approx(sum(without.gco2e.values()) + 0.1 * 1.5 * 50)
    assert with_idle.segments == without.segments
    night = total_of([record | {"idle_pue": 1.1} if "idle_joules" in record else record for record in records])
    assert sum(night.gco2e.values()) == pytest.approx(sum(without.gco2e.values()) + 0.1 * 1.1 * 50)
    unknown = total_of([record | {"idle_intensity": {"value": "x"}} if "idle_joules" in record else record
                        for record in records])  # fmt: skip
    assert unknown.unpriced_joules == pytest.approx(3.6e5 * 1.5)


def test_exit_in_progress_is_waiting():
    book = Book([100.0] * 24)
    book.start()
    book.work(1.0, event="paused")
    decision = {"event": "decision", "attempt": 1, "time_utc": (book.at + timedelta(hours=7)).isoformat()}
    totals = total_of([*book.records, decision])
    assert (totals.hours_waited, totals.elapsed_hours) == pytest.approx((7.0, 8.0))


def test_sleep_of_the_machine_is_neither_running_nor_waiting():
    book = Book([100.0] * 24)
    book.start()
    book.work(1.0)
    book.at += timedelta(hours=8)
    book.work(1.0, event="finished")  # nine hours for the wall clock, one for the monotonic clock
    for record, awake in zip(book.records, (0.0, 1.0, 2.0), strict=True):
        record |= {"mono_s": 1000.0 + awake * 3600, "pid": 7}
    totals = total_of(book.records)
    assert totals.seconds_by_state["running"] == pytest.approx(2 * 3600.0)
    assert totals.seconds_by_state["asleep"] == pytest.approx(8 * 3600.0)
    assert totals.hours_waited == 0.0
    assert full_power(totals) == pytest.approx(WATTS)


def test_energy_of_a_component_that_was_unavailable_for_a_while_is_known():
    book = Book([100.0] * 24)
    book.start()
    book.work(1.0)
    book.work(0.0)
    book.records[-1]["joules"]["gpu"]["quality"] = "unavailable"
    totals = total_of(book.records)
    assert totals.is_energy_known
    assert totals.known_kwh("gpu") == pytest.approx(0.3)
    never = Book([100.0] * 24, quality="unavailable")
    never.start()
    never.work(1.0, watts=0.0)
    assert not total_of(never.records).is_energy_known
