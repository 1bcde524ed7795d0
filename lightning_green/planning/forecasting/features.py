"""The features of the forecast correction, computed from the history that is available at each decision hour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecasting.history import History

Array = NDArray[np.float64]
Hours = NDArray[np.int64]

DAY = 24
CLIMATOLOGY_DAYS, CLIMATOLOGY_HALF_LIFE = 14, 5.0
BIAS_DAYS = 28
BIAS_PRIOR_DAYS = 2.0
"""Error-free days that the bias estimate is shrunk with."""
BIAS_WEIGHT = 0.85
RECENT_HOURS = 3


@dataclass(frozen=True)
class Features:
    """Features of ``t`` decision hours for the ``k`` hours that follow each of them.

    Args:
        recorded: Recorded intensity where it is already known, NaN elsewhere, shape ``(t, k)``.
        baseline: Newest forecast after bias correction, NaN where missing, shape ``(t, k)``.
        climatology: Typical day: fading mean over the last 14 days, shape ``(t, k)``.
        forecast_terms: Terms added to ``baseline``: recent error, latest day, climatology, deviation, shape
            ``(t, k, 4)``.
        history_terms: Terms added to ``climatology`` without a forecast: latest day and deviation, shape ``(t, k, 2)``.
        scale: Mean intensity over the last 14 days, shape ``(t, 1)``.

    """

    recorded: Array
    baseline: Array
    climatology: Array
    forecast_terms: Array
    history_terms: Array
    scale: Array


def compute_features(history: History, hours: Hours, horizon: int, lag: int) -> Features:
    """Return the features of each of ``hours`` for the ``horizon`` hours that follow.

    Args:
        history: Recorded intensities and issued forecasts.
        hours: Decision hours in hours since 1970 (UTC), shape ``(t,)``.
        horizon: Number of hours ahead.
        lag: Delay in hours after which an intensity is known; 1 excludes the current hour.

    """
    until = hours - lag + 1
    ahead = hours[:, np.newaxis] + np.arange(horizon)
    back = np.arange(DAY) - DAY
    days = np.arange(CLIMATOLOGY_DAYS + 1)
    # The last 15 known days hour by hour; axes: decision, day (0 is the latest), hour before the end of the day.
    recent = history.recorded(until[:, np.newaxis, np.newaxis] + back - DAY * days[:, np.newaxis])
    latest, climatology, previous = recent[:, 0], _fading_mean(recent[:, :-1]), _fading_mean(recent[:, 1:])
    scale = _finite_mean(recent.reshape(len(hours), -1))[:, np.newaxis]
    climatology = np.where(np.isfinite(climatology), climatology, scale)
    previous = np.where(np.isfinite(previous), previous, scale)
    latest = np.where(np.isfinite(latest), latest, climatology)
    deviation = _finite_mean((recent[:, 0] - previous)[:, -RECENT_HOURS:])
    hour_of_day = (ahead - until[:, np.newaxis]) % DAY
    climatology, latest = (np.take_along_axis(series, hour_of_day, axis=1) for series in (climatology, latest))
    deviation = np.broadcast_to(deviation[:, np.newaxis], ahead.shape)

    baseline, recent_error = _bias_corrected(history, hours, ahead, until)
    recent_error = np.broadcast_to(recent_error[:, np.newaxis], ahead.shape)
    return Features(
        recorded=history.recorded(np.where(ahead < until[:, np.newaxis], ahead, -1)),
        baseline=baseline,
        climatology=climatology,
        forecast_terms=np.stack((recent_error, latest - baseline, climatology - baseline, deviation), axis=-1),
        history_terms=np.stack((latest - climatology, deviation), axis=-1),
        scale=scale,
    )


def bias_table(history: History) -> tuple[int, Array]:
    """Return the mean forecast error over the 28 days before each day, by days ahead and UTC hour.

    An error belongs to the day of the predicted hour. With few days of errors the mean is shrunk towards zero, as by
    two error-free days.

    Returns:
        The first day, and the errors in gCO2e/kWh, shape ``(days + 1, days ahead, 24)``.

    """
    first = history.first // DAY
    days = (history.known_until - 1) // DAY - first + 1
    ahead = -(-history.forecasts.shape[1] // DAY)
    if not len(history.issued) or days <= 0:
        return first, np.zeros((max(days, 0) + 1, 1, DAY))
    lead = np.arange(history.forecasts.shape[1])
    hours = history.issued[:, np.newaxis] + lead
    error = history.recorded(hours) - history.forecasts
    valid = np.isfinite(error)
    index = ((hours // DAY - first) * ahead + lead // DAY) * DAY + hours % DAY
    size = days * ahead * DAY
    total = np.bincount(index[valid], error[valid], size)
    count = np.bincount(index[valid], minlength=size)
    mean = np.divide(total, count, out=np.zeros(size), where=count > 0).reshape(days, ahead, DAY)
    observed = (count > 0).reshape(days, ahead, DAY)
    sums = np.concatenate((np.zeros((1, ahead, DAY)), np.cumsum(mean, axis=0)))
    counts = np.concatenate((np.zeros((1, ahead, DAY)), np.cumsum(observed, axis=0)))
    start = np.maximum(0, np.arange(days + 1) - BIAS_DAYS)
    table: Array = (sums - sums[start]) / (counts - counts[start] + BIAS_PRIOR_DAYS)
    return first, table


def _bias_corrected(history: History, hours: Hours, ahead: Hours, until: Hours) -> tuple[Array, Array]:
    """Return the newest forecast after bias correction, and its mean error in the last three known hours.

    The shapes are ``(t, k)`` and ``(t,)``.
    """
    first, table = bias_table(history)

    def bias(day: Hours, issued: Hours, predicted: Hours) -> Array:
        row = np.clip(day - first, 0, len(table) - 1)
        column = np.clip((predicted - issued) // DAY, 0, table.shape[1] - 1)
        mean: Array = table[row, column, predicted % DAY]
        return BIAS_WEIGHT * mean

    def issue_hour(issuance: Hours, default: Hours) -> Hours:
        return history.issued[np.maximum(issuance, 0)] if len(history.issued) else default

    newest = history.newest_issuance(hours)
    issued = issue_hour(newest, hours)
    baseline = history.predicted(newest[:, np.newaxis], ahead)
    baseline = baseline + bias((hours // DAY)[:, np.newaxis], issued[:, np.newaxis], ahead)
    recent = until[:, np.newaxis] + np.arange(-RECENT_HOURS, 0)
    issuance = history.newest_issuance(recent)
    error = history.recorded(recent) - history.predicted(issuance, recent)
    error = error - bias(recent // DAY, issue_hour(issuance, recent), recent)
    return baseline, _finite_mean(error)


def _fading_mean(recent: Array) -> Array:
    """Return the weighted mean over the days (axis 1, the latest first), halving the weight every five days."""
    weight = 0.5 ** (np.arange(recent.shape[1]) / CLIMATOLOGY_HALF_LIFE)[:, np.newaxis]
    valid = np.isfinite(recent)
    total = np.sum(np.where(valid, recent, 0.0) * weight, axis=1)
    share = np.sum(valid * weight, axis=1)
    mean: Array = np.divide(total, share, out=np.full(total.shape, np.nan), where=share > 0)
    return mean


def _finite_mean(values: Array) -> Array:
    """Return the mean of the finite values over the last axis; 0 if there are none."""
    valid = np.isfinite(values)
    mean: Array = np.where(valid, values, 0.0).sum(axis=-1) / np.maximum(1, valid.sum(axis=-1))
    return mean
