"""The order in which values of a snapshot are used."""

from datetime import timedelta

import pytest

from lightning_green.grid.live.query import Answer, Point
from lightning_green.grid.live.snapshot import Snapshot, hourly_means
from tests.helpers.live_signals import NOW

HOUR = timedelta(hours=1)
START = NOW.replace(minute=0)
MAX_AGE = 4 * HOUR


def past(last, hours=30, value=300.0):
    return tuple(Point(last - HOUR * back, value + back) for back in range(hours, -1, -1))


def predictions(first, hours=24, value=200.0):
    return tuple(Point(first + HOUR * ahead, value + ahead, "forecast") for ahead in range(hours))


def snapshot(*answers):
    return Snapshot(HOUR).merged([(answer, START) for answer in answers], START)


def test_measured_value_of_the_time_is_preferred():
    found = snapshot(Answer(past(START), predictions(START))).find(NOW, MAX_AGE)
    assert (found.value, found.quality, found.age) == (300.0, "measured", timedelta(0))


def test_forecast_is_moved_by_its_error_at_the_newest_value():
    found = snapshot(Answer(past(START - HOUR), predictions(START - HOUR))).find(NOW, MAX_AGE)
    assert (found.value, found.quality) == (201.0 + (300.0 - 200.0), "forecast")


def test_forecast_without_a_recent_value_is_used_as_it_is():
    found = snapshot(Answer(past(START - 5 * HOUR), predictions(START))).find(NOW, MAX_AGE)
    assert (found.value, found.quality) == (200.0, "forecast")


def test_value_up_to_the_maximum_age_is_used_without_a_forecast():
    made = snapshot(Answer(past(START)))
    for hours in (1, 3):
        found = made.find(START + hours * HOUR, MAX_AGE)
        assert (found.value, found.quality, found.age) == (300.0, "measured", hours * HOUR)
        assert made.is_current(START + hours * HOUR, MAX_AGE)


def test_same_hour_of_an_earlier_day_is_used_after_the_maximum_age():
    made = snapshot(Answer(past(START)))
    found = made.find(START + 5 * HOUR, MAX_AGE)
    assert (found.value, found.quality, found.age) == (300.0 + 19, "estimated", timedelta(days=1))
    assert not made.is_current(START + 5 * HOUR, MAX_AGE)
    assert made.find(START + timedelta(days=9), MAX_AGE) is None
    assert Snapshot(HOUR).find(NOW, MAX_AGE) is None


def test_new_forecast_replaces_the_old_one_from_its_first_hour():
    made = snapshot(Answer(forecast=predictions(START)), Answer(forecast=predictions(START + 2 * HOUR, value=500.0)))
    assert [point.value for point in made.predictions[:3]] == [200.0, 201.0, 500.0]


def test_measured_value_from_the_future_is_dropped():
    made = snapshot(Answer(past(START + 2 * HOUR)))
    assert made.past[-1].time == START


def test_forecast_is_contiguous_and_not_issued_in_the_future():
    gap = predictions(START, 3) + predictions(START + 6 * HOUR, 3)
    made = snapshot(Answer(past(START), gap, issued_at=START + HOUR))
    forecast = made.forecast(NOW, 24 * HOUR, MAX_AGE, "average/lifecycle")
    assert forecast.times == [START, START + HOUR, START + 2 * HOUR]
    assert forecast.values.tolist() == [300.0, 201.0, 202.0]
    assert forecast.issued_at == START
    assert forecast.history_times[-1] == START - HOUR


def test_history_is_the_mean_of_each_hour():
    points = [Point(START + timedelta(minutes=15 * quarter), float(quarter)) for quarter in range(6)]
    assert hourly_means(points) == [(START, 1.5), (START + HOUR, 4.5)]


@pytest.mark.parametrize("answers", [[], [Answer(past(START))]])
def test_merge_without_answers_changes_nothing(answers):
    made = snapshot(*answers)
    assert made.merged([], START).past == made.past
