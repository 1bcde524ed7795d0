"""Features of the correction: known hours, climatology, bias and recent error."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_green.planning.forecasting.features import BIAS_DAYS, BIAS_WEIGHT, DAY, bias_table, compute_features
from lightning_green.planning.forecasting.history import History
from tests.helpers.zone_archives import make_archive

FIRST = 480_000  # midnight


def history(actual, bias=-10.0, horizon=48):
    """Return a history with a forecast at every midnight that is wrong by ``bias``."""
    actual = np.asarray(actual, dtype=np.float64)
    issued = np.arange(FIRST, FIRST + len(actual), DAY)
    place = np.minimum(issued[:, np.newaxis] - FIRST + np.arange(horizon), len(actual) - 1)
    return History(FIRST, actual, issued, actual[place] + bias)


def features(of, hour, horizon=24, lag=1):
    return compute_features(of, np.array([hour]), horizon, lag)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_features_use_nothing_that_is_known_later(lag):
    zone = make_archive(days=25)
    whole = History(zone.first, zone.actual, zone.issued, zone.forecasts)
    hour = zone.first + 20 * DAY + 9
    rng = np.random.default_rng(0)
    actual, forecasts = zone.actual.copy(), zone.forecasts.copy()
    actual[hour - lag + 1 - zone.first :] = rng.uniform(0, 2000, len(actual) - (hour - lag + 1 - zone.first))
    later = zone.issued > hour
    forecasts[later] = rng.uniform(0, 2000, forecasts[later].shape)
    changed = replace(whole, actual=actual, forecasts=forecasts)
    for name, value in vars(features(whole, hour, lag=lag)).items():
        assert np.array_equal(value, vars(features(changed, hour, lag=lag))[name], equal_nan=True), name


def test_recorded_hours_are_those_that_are_known_already():
    of = history(np.arange(20.0 * DAY))
    hour = FIRST + 15 * DAY
    assert np.isnan(features(of, hour, lag=1).recorded).all()
    found = features(of, hour, lag=0).recorded[0]
    assert found[0] == 15 * DAY
    assert np.isnan(found[1:]).all()


def test_climatology_is_the_mean_day_with_half_weights_every_five_days():
    day = np.tile(np.arange(24.0), 14)
    day[-5 * DAY :] += 100  # the last five days
    found = features(history(day), FIRST + 14 * DAY).climatology[0]
    weights = 0.5 ** (np.arange(14) / 5)
    assert found == pytest.approx(np.arange(24.0) + 100 * weights[:5].sum() / weights.sum())


def test_latest_day_and_deviation_are_relative_to_the_climatology():
    day = np.tile(np.full(24, 100.0), 15)
    day[-DAY:] = 130.0
    found = features(history(day), FIRST + 15 * DAY)
    latest, deviation = found.history_terms[0, 0]
    assert found.climatology[0, 0] + latest == pytest.approx(130.0)
    assert deviation == pytest.approx(30.0), "the last three hours differ from the days before by this amount"
    assert found.scale[0, 0] == pytest.approx((14 * 100 + 130) / 15)


def test_bias_is_the_mean_error_shrunk_by_two_error_free_days():
    first, table = bias_table(history(np.full(10 * DAY, 200.0), bias=-10.0))
    assert first == FIRST // DAY
    assert table.shape == (11, 2, 24)
    days = np.arange(11)
    assert table[:, 0, 5] == pytest.approx(10 * days / (days + 2))
    assert table[1, 1, 5] == 0.0, "the second day ahead of the first forecast is not over yet"
    assert table[4, 1, 5] == pytest.approx(10 * 3 / 5)


def test_bias_forgets_errors_after_28_days():
    wrong = history(np.full(60 * DAY, 200.0), bias=0.0)
    forecasts = wrong.forecasts.copy()
    forecasts[:20] -= 50.0
    _, table = bias_table(replace(wrong, forecasts=forecasts))
    assert table[20, 0, 0] > 30
    assert table[20 + BIAS_DAYS, 0, 0] == pytest.approx(0.0)


def test_baseline_is_the_newest_forecast_after_bias_correction():
    of = history(np.full(20 * DAY, 200.0), bias=-10.0)
    found = features(of, FIRST + 19 * DAY + 3, horizon=48)
    expected = 190 + BIAS_WEIGHT * 10 * 19 / 21
    assert found.baseline[0, :21] == pytest.approx(expected)
    assert found.baseline[0, 21:45] == pytest.approx(190 + BIAS_WEIGHT * 10 * 18 / 20), "a day of errors less"
    assert np.isnan(found.baseline[0, 45:]).all(), "the forecast ends"


def test_recent_error_is_that_of_the_last_three_known_hours_without_the_bias():
    of = history(np.full(20 * DAY, 200.0), bias=0.0)
    forecasts = of.forecasts.copy()
    forecasts[-1, 6:9] = [180, 170, 160]
    found = features(replace(of, forecasts=forecasts), FIRST + 19 * DAY + 9, lag=1)
    assert found.forecast_terms[0, 0, 0] == pytest.approx(30.0, rel=0.05)
    biased = features(history(np.full(20 * DAY, 200.0), bias=-10.0), FIRST + 19 * DAY + 9)
    assert biased.forecast_terms[0, 0, 0] == pytest.approx(10 - BIAS_WEIGHT * 10 * 19 / 21)


def test_history_without_forecasts_has_no_baseline():
    of = replace(history(np.full(20 * DAY, 200.0)), issued=np.empty(0, dtype=np.int64), forecasts=np.empty((0, 0)))
    found = features(of, FIRST + 20 * DAY)
    assert np.isnan(found.baseline).all()
    assert found.climatology[0] == pytest.approx(200.0)
    assert bias_table(of)[1].shape == (21, 1, 24)


def test_hours_without_a_recorded_value_get_the_overall_mean():
    day = np.tile(np.full(24, 100.0), 15)
    day[5::24] = np.nan
    assert features(history(day), FIRST + 15 * DAY).climatology[0, 5] == pytest.approx(100.0)
