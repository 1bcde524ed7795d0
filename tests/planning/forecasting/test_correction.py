"""The linear correction: weights, errors and the share of the history-only prediction."""

import numpy as np
import pytest

from lightning_green.planning.forecasting.correction import (
    MAX_LEAD,
    DailyCorrection,
    fit_correction,
    fit_history_share,
)
from lightning_green.planning.forecasting.features import compute_features
from lightning_green.planning.forecasting.history import History
from tests.helpers.zone_archives import make_archive


def test_history_share_depends_on_hourly_differences_not_on_the_level():
    """A history-only prediction with exact differences between hours and a wrong level gets a share."""
    rng = np.random.default_rng(3)
    hours = rng.normal(0, 0.1, (200, MAX_LEAD))
    level = np.repeat(rng.normal(0, 0.5, (200, 1)), MAX_LEAD, axis=1)
    decay, error = np.ones(200), np.full(MAX_LEAD, 0.1)
    share, left = fit_history_share(hours, hours + level, decay, error)
    assert share == pytest.approx(np.full(MAX_LEAD, 200 / (200 + 5 * 8)), rel=0.01)
    assert (left > error).all(), "the error includes that of the level"
    noise = rng.normal(0, 0.1, hours.shape)
    assert fit_history_share(hours + level, noise + level, decay, error)[0].max() < 0.05
    assert fit_history_share(hours, -hours, decay, error)[0].max() == 0
    halves = fit_history_share(hours, 2 * hours, decay, error)
    assert halves[0][0] == pytest.approx(0.5 * share[0], rel=0.01)
    assert (halves[1] < error).all()


def test_weights_are_fitted_from_seven_issuances():
    zone = make_archive(days=30, bias=80.0)
    few = History(zone.first, zone.actual[: 24 * 6], zone.issued[:6], zone.forecasts[:6])
    many = History(zone.first, zone.actual[: 24 * 25], zone.issued[:25], zone.forecasts[:25])
    none = History(zone.first, zone.actual[:0], zone.issued[:0], zone.forecasts[:0])
    assert np.array_equal(fit_correction(few, 1).forecast_weights, fit_correction(none, 1).forecast_weights)
    assert not np.array_equal(fit_correction(many, 1).forecast_weights, fit_correction(none, 1).forecast_weights)
    assert fit_correction(many, 1).forecast_weights.shape == (MAX_LEAD, 4)


def test_known_hours_keep_their_recorded_values():
    zone = make_archive(days=20)
    hour = zone.first + 15 * 24 + 9
    history = History(zone.first, zone.actual[: hour + 1 - zone.first], zone.issued[:16], zone.forecasts[:16])
    value, spread = fit_correction(history, 0).predict(compute_features(history, np.array([hour]), 24, 0))
    assert value[0, 0] == zone.actual[hour - zone.first]
    assert spread[0, 0] == 0
    assert (spread[0, 1:] > 0).all()


def test_daily_correction_is_fitted_on_the_history_known_at_midnight():
    zone = make_archive(days=30, bias=80.0)
    midnight = zone.first + 25 * 24
    morning = History(zone.first, zone.actual[: 25 * 24 + 9], zone.issued[:26], zone.forecasts[:26])
    evening = History(zone.first, zone.actual[: 25 * 24 + 20], zone.issued[:26], zone.forecasts[:26] + 1.0)
    daily = DailyCorrection()
    first = daily.at(morning, midnight + 9, 1)
    assert daily.at(evening, midnight + 20, 1) is first
    assert daily.at(evening, midnight + 24, 1) is not first
    at_midnight = fit_correction(morning.known_at(midnight, 1, 90 * 24), 1)
    assert np.array_equal(first.forecast_weights, at_midnight.forecast_weights)
    assert morning.known_at(midnight, 1, 90 * 24).known_until == midnight
