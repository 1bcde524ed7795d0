"""Recorded intensities and issuances as arrays by hour."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_green.planning import Forecast
from lightning_green.planning.forecasting.history import HOUR, History, build_history, hourly
from tests.helpers.zone_archives import to_time

FIRST = 480_000
NAN = float("nan")
HISTORY = History(
    FIRST,
    np.array([10.0, 11.0, NAN, 13.0]),
    np.array([FIRST, FIRST + 2]),
    np.array([[100.0, 101.0, 102.0], [202.0, 203.0, NAN]]),
)


def forecast(issued, values=(1.0, 2.0), start=None, **kwargs):
    begin = issued if start is None else start
    times = [to_time(begin + hour) for hour in range(len(values))]
    return Forecast(times, values, issued_at=to_time(issued), **kwargs)


def equal(found, expected):
    return np.array_equal(found, np.array(expected, dtype=np.float64), equal_nan=True)


def test_recorded_value_of_an_unknown_hour_is_nan():
    assert equal(HISTORY.recorded(FIRST + np.arange(-1, 5)), [NAN, 10, 11, NAN, 13, NAN])
    empty = replace(HISTORY, actual=np.empty(0))
    assert equal(empty.recorded(np.array([FIRST])), [NAN])
    assert HISTORY.known_until == FIRST + 4


def test_prediction_belongs_to_the_issuance_and_its_hours():
    hours = FIRST + np.arange(-1, 5)
    assert equal(HISTORY.predicted(np.array([0]), hours), [NAN, 100, 101, 102, NAN, NAN])
    assert equal(HISTORY.predicted(np.array([1]), hours), [NAN, NAN, NAN, 202, 203, NAN])
    assert equal(HISTORY.predicted(np.array([-1]), hours), [NAN] * 6)
    none = replace(HISTORY, issued=HISTORY.issued[:0], forecasts=HISTORY.forecasts[:0])
    assert equal(none.predicted(np.array([[-1]]), hours), [[NAN] * 6])


def test_newest_issuance_is_the_last_one_issued_by_an_hour():
    assert HISTORY.newest_issuance(FIRST + np.arange(-1, 4)).tolist() == [-1, 0, 0, 1, 1]


@pytest.mark.parametrize(("lag", "values"), [(0, [10, 11, NAN]), (1, [10, 11]), (2, [10]), (9, [])])
def test_history_known_in_an_hour_ends_with_the_lag_and_contains_no_later_issuance(lag, values):
    known = HISTORY.known_at(FIRST + 2, lag, memory=100)
    assert equal(known.actual, values)
    assert known.issued.tolist() == [FIRST, FIRST + 2]
    assert HISTORY.known_at(FIRST + 1, lag, memory=100).issued.tolist() == [FIRST]


def test_history_known_in_an_hour_is_limited_to_the_memory():
    known = HISTORY.known_at(FIRST + 3, lag=1, memory=2)
    assert (known.first, known.actual[0]) == (FIRST + 1, 11.0)
    assert known.issued.tolist() == [FIRST + 2]


def test_newest_forecast_is_the_last_issuance():
    newest = forecast(FIRST + 5, (50.0, 51.0), history_times=[to_time(FIRST)], history_values=[7.0])
    made = build_history(newest, [forecast(FIRST + 1, (10.0, 11.0, 12.0))], FIRST + 5)
    assert made.issued.tolist() == [FIRST + 1, FIRST + 5]
    assert equal(made.forecasts, [[10, 11, 12], [50, 51, NAN]])
    assert (made.first, made.actual.tolist()) == (FIRST, [7.0])


def test_issuances_of_another_kind_without_a_time_or_from_the_future_are_skipped():
    newest = forecast(FIRST + 5)
    earlier = [
        forecast(FIRST + 1, kind="average/direct"),
        replace(forecast(FIRST + 2), issued_at=None),
        Forecast([], [], issued_at=to_time(FIRST + 3)),
        forecast(FIRST + 7),
        forecast(FIRST + 4),
    ]
    assert build_history(newest, earlier, FIRST + 6).issued.tolist() == [FIRST + 4, FIRST + 5]
    unknown = replace(newest, issued_at=None)
    assert build_history(unknown, [], FIRST + 5).issued.tolist() == [FIRST + 5], "issued now if the time is unknown"


def test_issuance_begins_in_its_hour_of_issue():
    early = forecast(FIRST, (1.0, 2.0, 3.0), start=FIRST - 1)
    late = forecast(FIRST + 1, (4.0,), start=FIRST + 3)
    assert equal(build_history(late, [early], FIRST + 1).forecasts, [[2, 3, NAN], [NAN, NAN, 4]])


def test_recorded_values_after_the_current_hour_are_dropped():
    times = [to_time(FIRST + hour) for hour in range(4)]
    newest = forecast(FIRST + 1, history_times=times, history_values=[1.0, 2.0, 3.0, 4.0])
    assert build_history(newest, [], FIRST + 1).actual.tolist() == [1, 2]


def test_values_within_an_hour_are_averaged_and_gaps_are_nan():
    seconds = FIRST * HOUR + 900.0 * np.array([0, 1, 2, 3, 12, 13, 14, 15])
    first, means = hourly(seconds, np.arange(8.0), full=True)
    assert first == FIRST
    assert equal(means, [1.5, NAN, NAN, 5.5])


def test_partly_covered_last_hour_is_dropped_only_if_it_must_be_full():
    seconds = FIRST * HOUR + 900.0 * np.arange(6)
    assert hourly(seconds, np.arange(6.0), full=True)[1].tolist() == [1.5]
    assert hourly(seconds, np.arange(6.0), full=False)[1].tolist() == [1.5, 4.5]
    assert hourly(np.array([FIRST * HOUR]), np.array([3.0]), full=True)[1].tolist() == [3.0]
    assert hourly(np.empty(0), np.empty(0), full=True)[1].tolist() == []
