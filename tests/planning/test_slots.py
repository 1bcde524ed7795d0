"""The time axis of a plan: lengths of slots, filled hours and their spread."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from lightning_green.planning import Forecast, Job, plan
from lightning_green.planning.slots import HOUR, MAX_SLOTS, make_slots, mean_day

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
NOW = START.timestamp()


def over(values, minutes=60, start=START, **kwargs):
    return Forecast([start + timedelta(minutes=minutes * at) for at in range(len(values))], values, **kwargs)


def past(days, value_of_hour):
    """Return the history of some days as arguments of a forecast."""
    times = [START - timedelta(hours=back) for back in range(24 * days, 0, -1)]
    return {"history_times": times, "history_values": [value_of_hour(time.hour) for time in times]}


def test_slots_begin_now_and_end_at_the_horizon():
    slots = make_slots(over([100, 200, 300, 400]), NOW + 0.25 * HOUR, 2.5)
    assert slots.edges == pytest.approx([0, 0.75, 1.75, 2.5])
    assert slots.values.tolist() == [100, 200, 300]
    assert slots.hours == pytest.approx([0.75, 1, 0.75])
    assert slots.filled_hours == pytest.approx(0)


def test_forecast_with_a_split_slot_gives_the_same_slots():
    times = [START + timedelta(minutes=minutes) for minutes in (0, 60, 90, 120)]
    split = make_slots(Forecast(times, [100, 200, 200, 300]), NOW, 2.5)
    whole = make_slots(over([100, 200, 300]), NOW, 2.5)
    assert split.edges == pytest.approx(whole.edges)
    assert split.values.tolist() == whole.values.tolist()


def test_equal_neighbors_are_cut_into_slots_of_an_hour_at_most():
    assert make_slots(over([100] * 6), NOW, 6.0).hours == pytest.approx([1.0] * 6)
    daily = Forecast([START, START + timedelta(days=1), START + timedelta(days=2)], [100, 200, 300])
    assert make_slots(daily, NOW, 48.0).hours.max() == pytest.approx(1.0)


def test_slots_are_five_minutes_at_least_and_keep_the_mean():
    values = np.random.default_rng(0).uniform(100, 500, 120)
    slots = make_slots(over(values, minutes=1), NOW, 2.0)
    assert slots.hours == pytest.approx([5 / 60] * 24)
    assert slots.values == pytest.approx(values.reshape(24, 5).mean(axis=1))


def test_far_slots_are_joined_to_hours_if_there_are_many():
    values = np.random.default_rng(0).uniform(100, 500, 12 * 96)
    slots = make_slots(over(values, minutes=5), NOW, 96.0)
    assert len(slots.values) == 24 * 12 + 72 <= MAX_SLOTS
    assert slots.hours[: 24 * 12] == pytest.approx([5 / 60] * 24 * 12)
    assert slots.values[24 * 12 :] == pytest.approx(values[24 * 12 :].reshape(72, 12).mean(axis=1))


def test_slots_become_longer_with_the_distance_after_four_weeks():
    values = np.random.default_rng(0).uniform(100, 500, 24 * 90)
    slots = make_slots(over(values), NOW, 24.0 * 90)
    assert slots.hours.min() == 1.0
    assert slots.hours == pytest.approx(np.floor(np.clip(slots.edges[:-1] / (14 * 24), 1, None)), abs=1.01)
    counts = dict(zip(*np.unique(slots.hours, return_counts=True), strict=True))
    assert counts == {1: 28 * 24, 2: 14 * 12, 3: 14 * 8, 4: 28 * 6, 6: 6 * 4}
    assert slots.values[28 * 24 :][:168] == pytest.approx(values[28 * 24 : 42 * 24].reshape(168, 2).mean(axis=1))


@pytest.mark.parametrize("minutes", [60, 30, 5])
@pytest.mark.parametrize("begun", [0.0, 0.3, 7.75])
def test_slots_of_a_shorter_horizon_are_the_first_of_a_longer_one(minutes, begun):
    """The last slot is cut short. Its value is the mean of the whole slot."""
    forecast = over(np.random.default_rng(0).uniform(100, 500, 24 * 60 // minutes * 3), minutes)
    now = NOW + begun * HOUR
    longest = make_slots(forecast, now, 3000.0)
    for horizon in (200.4, 500.0, 671.7, 672.3, 1009.1, 1800.9, 2718.2):
        slots = make_slots(forecast, now, horizon)
        count = len(slots.values)
        assert slots.values == pytest.approx(longest.values[:count])
        assert slots.edges[:-1] == pytest.approx(longest.edges[:count])
        assert slots.edges[-1] == pytest.approx(horizon)
        assert slots.edges[-1] <= longest.edges[count] + 1e-6


def test_fine_hours_are_the_longest_horizon_at_the_resolution_of_the_forecast():
    forecast = over(np.random.default_rng(0).uniform(100, 500, 12 * 96), minutes=5)
    limit = MAX_SLOTS / 12
    assert make_slots(forecast, NOW, 96.0).fine_hours == pytest.approx(limit)
    assert make_slots(forecast, NOW, 48.0).fine_hours == 48.0
    whole = make_slots(forecast, NOW, limit)
    assert len(whole.values) == MAX_SLOTS
    assert whole.fine_hours == limit
    assert make_slots(over([100, 200] * 48), NOW, 24.0 * 300).fine_hours == 24 * 300


def test_missing_hours_are_the_mean_of_the_same_hour_of_the_last_seven_days():
    recent = past(10, lambda hour: 10.0 * hour)
    recent["history_values"][:72] = [9999.0] * 72  # older than seven days
    slots = make_slots(over([500, 500], start=START + timedelta(hours=2), **recent), NOW, 6.0)
    assert slots.values.tolist() == [0, 10, 500, 500, 40, 50]
    assert slots.filled_hours == pytest.approx(4)


def test_without_a_history_the_last_day_of_the_forecast_is_repeated():
    values = [float(hour) for hour in range(48)]
    slots = make_slots(over(values), NOW, 72.0)
    assert slots.values[48:].tolist() == values[24:]
    assert slots.filled_hours == pytest.approx(24)


def test_history_alone_is_repeated_and_nothing_is_none():
    slots = make_slots(Forecast([], [], **past(2, lambda hour: 10.0 * hour)), NOW, 3.0)
    assert slots.values.tolist() == [0, 10, 20]
    assert slots.filled_hours == pytest.approx(3)
    assert make_slots(Forecast([], []), NOW, 3.0) is None
    expired = over([100, 200], start=START - timedelta(days=2))
    assert make_slots(Forecast(expired.times, expired.values), NOW, 3.0).filled_hours == pytest.approx(3)


def test_filled_hours_have_the_largest_known_spread():
    known = over([100, 200], spread=[10.0, 30.0], **past(2, lambda hour: 300.0))
    assert make_slots(known, NOW, 4.0).spread.tolist() == [10, 30, 30, 30]
    assert make_slots(over([100, 200], **past(2, lambda hour: 300.0)), NOW, 4.0).spread is None


def test_mean_of_an_hour_without_values_is_the_overall_mean():
    day = mean_day(np.array([0.0, 1800.0, HOUR]), np.array([100.0, 200.0, 600.0]), np.array([1.0, 3.0, 4.0]))
    assert day[:2].tolist() == [175.0, 600.0]
    assert day[2:].tolist() == [(100 + 3 * 200 + 4 * 600) / 8] * 22


def test_deadline_within_a_filled_hour_cuts_no_other_slot():
    quarters = over(range(100, 108), minutes=15, **past(2, lambda hour: 300))
    job = Job(9.9, deadline=START + timedelta(hours=10.2496), safety=0.0)
    answer = plan(job, quarters, START + timedelta(minutes=7))
    lengths = {round((slot.end - slot.start) / timedelta(minutes=1), 6) for slot in answer.slots[1:-1]}
    assert lengths == {15.0}
