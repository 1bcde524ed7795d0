"""Piecewise constant series."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_green.grid.series import Series, grid_times

START = datetime(2026, 3, 28, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def series(*values, **options):
    return Series([(START + HOUR * i, value) for i, value in enumerate(values)], **options)


def test_value_is_valid_until_the_next_and_the_last_for_one_interval():
    s = series(100.0, 200.0)
    assert s.at(START + HOUR * 0.999)[1] == 100.0
    assert s.at(START + HOUR)[1] == 200.0
    assert s.at(START + HOUR * 1.999)[1] == 200.0
    assert s.at(START + HOUR * 2) is None
    assert s.at(START - timedelta(seconds=1)) is None
    assert s.covers_until() == START + HOUR * 2


def test_time_in_a_gap_is_unknown():
    points = [(START, 100.0), (START + HOUR * 5, 200.0)]
    assert Series(points, gap=HOUR).at(START + HOUR * 2) is None
    assert Series(points, gap=HOUR).mean(START, START + HOUR * 6) is None
    assert Series(points).at(START + HOUR * 2)[1] == 100.0


def test_mean_is_the_exact_integral():
    s = series(100.0, 200.0, 600.0)
    assert s.mean(START, START + HOUR * 3) == pytest.approx(300.0, abs=1e-12)
    # a quarter of an hour at 100, an hour at 200, half an hour at 600
    expected = (0.25 * 100 + 1 * 200 + 0.5 * 600) / 1.75
    assert s.mean(START + HOUR * 0.75, START + HOUR * 2.5) == pytest.approx(expected, abs=1e-9)
    assert s.mean(START, START) == 100.0
    assert s.mean(START, START + HOUR * 3.01) is None


@given(
    st.lists(st.floats(0, 2000), min_size=2, max_size=48),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_mean_is_additive_and_within_bounds(values, a, b):
    s = series(*values)
    end = START + HOUR * len(values)
    low, high = sorted((START + (end - START) * a, START + (end - START) * b))
    if low >= end:
        return
    mean = s.mean(low, high)
    assert min(values) - 1e-6 <= mean <= max(values) + 1e-6
    middle = low + (high - low) / 2
    if middle > low and high > middle:
        width, left = (high - low).total_seconds(), (middle - low).total_seconds()
        halves = s.mean(low, middle) * left + s.mean(middle, high) * (width - left)
        assert halves == pytest.approx(mean * width, rel=1e-6, abs=1e-2)


def test_forecast_contains_the_history_before_it():
    s = series(*range(24 * 12))
    now = START + timedelta(days=10, minutes=30)
    forecast = s.forecast(now, HOUR * 2, "average/lifecycle", issued_at=now)
    assert list(forecast.values) == [240.0, 241.0, 242.0]
    assert forecast.history_times[-1] + HOUR == forecast.times[0]
    assert len(forecast.history_times) == 8 * 24
    assert s.forecast(START - HOUR, HOUR, "average/lifecycle", None) is None


def test_grid_times_are_aligned_and_cover():
    times = grid_times(START + timedelta(minutes=50), HOUR, HOUR)
    assert list(times) == [START, START + HOUR]
