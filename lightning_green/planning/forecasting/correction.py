"""A linear correction of forecasts, fitted on the recent history.

For the hour ``k`` hours ahead, with the newest forecast ``F``:

    F + b(k) B + e(k) E + y(k) (Y - F - B) + u(k) (U - F - B) + d(k) D

``B`` is the mean error of the last 28 days for this hour of the day and this number of days ahead. ``E`` is the
remaining error in the last three known hours. ``Y`` is the latest known day, ``U`` the climatology (a fading mean over
14 days), and ``D`` the deviation of the last three known hours from the climatology. Without a forecast:

    U + y(k) (Y - U) + d(k) D

The weights are fitted by ridge regression on the recent history for each band of lead times, and shrunk towards a
prior (see docs/planner_method.md). The prior is used alone until there are seven issuances to learn from.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecasting.features import DAY, Features, compute_features
from lightning_green.planning.forecasting.history import History

Array = NDArray[np.float64]

LEAD_BANDS = (0, 1, 2, 3, 5, 8, 12, 18, 24, 30, 36, 48, 72)
"""Lower edges of the bands of lead times in hours. The last band is open."""
MAX_LEAD = 72
"""Lead times in hours that weights are fitted for; longer ones use the last weight."""
FIT_DAYS, FIT_HALF_LIFE = 60, 45.0
FIT_EVERY = 3
"""Hours between two decision hours of the fit."""
PRIOR_DAYS = 30.0
"""Days of data that the prior of the weights counts for."""
SHARE_PRIOR_DAYS = 5.0
"""Days of data that the prior of the history share counts for: a single number needs fewer."""
SHARE_HOURS = 48
"""Hours ahead that the history share is fitted on."""
FIT_MEMORY = 90 * DAY
"""Hours of history that a fit uses: the days of the fit and those before them in the features."""
MIN_ISSUANCES = 7
MIN_DAYS = 7
FORECAST_ERROR, HISTORY_ERROR = 0.04, 0.1
"""Assumed root mean square error a day ahead with and without a forecast, as a fraction of the mean intensity."""


@dataclass(frozen=True)
class Correction:
    """Weights of the features for each lead time, and the errors that remain.

    Args:
        forecast_weights: Weights of `forecast_terms`, shape ``(leads, 4)``.
        history_weights: Weights of `history_terms`, shape ``(leads, 2)``.
        forecast_error: Root mean square error with a forecast, as a fraction of the mean intensity, shape ``(leads,)``.
        history_error: The same without a forecast.
        history_share: Weight of the history-only prediction where there is a forecast, shape ``(leads,)``.

    """

    forecast_weights: Array
    history_weights: Array
    forecast_error: Array
    history_error: Array
    history_share: Array

    def predict(self, features: Features) -> tuple[Array, Array]:
        """Return the intensity of each hour and its standard deviation in gCO2e/kWh, both of shape ``(t, k)``."""
        lead = np.minimum(np.arange(features.climatology.shape[1]), MAX_LEAD - 1)
        with_forecast = features.baseline + np.einsum(
            "tkp,kp->tk", features.forecast_terms, self.forecast_weights[lead]
        )
        without = features.climatology + np.einsum("tkp,kp->tk", features.history_terms, self.history_weights[lead])
        has_forecast = np.isfinite(with_forecast)
        mixed = with_forecast + self.history_share[lead] * (without - with_forecast)
        value = np.where(has_forecast, mixed, without)
        error = np.where(has_forecast, self.forecast_error[lead], self.history_error[lead]) * features.scale
        known = np.isfinite(features.recorded)
        return np.maximum(0.0, np.where(known, features.recorded, value)), np.where(known, 0.0, error)


class DailyCorrection:
    """The correction of one grid, fitted once a day for each delay, on the history that was known at midnight (UTC)."""

    def __init__(self) -> None:
        self._fitted: dict[tuple[int, int], Correction] = {}

    def at(self, history: History, hour: int, lag: int) -> Correction:
        """Return the correction of the day of ``hour``; fit it if this is the first call of the day.

        Args:
            history: Available recorded intensities and forecasts.
            hour: Current hour, in hours since 1970 (UTC).
            lag: Delay in hours after which an intensity is known; 1 excludes the current hour.

        """
        midnight = hour // DAY * DAY
        if (midnight, lag) not in self._fitted:
            self._fitted[midnight, lag] = fit_correction(history.known_at(midnight, lag, FIT_MEMORY), lag)
        return self._fitted[midnight, lag]


def prior_weights(lead: Array) -> tuple[Array, Array]:
    """Return the prior weights of the forecast terms and of the history terms for each lead time in hours."""
    zero = np.zeros(len(lead))
    deviation = 0.55 * np.exp(-lead / 7.0) + 0.42 * np.exp(-lead / 48.0)
    with_forecast = np.stack((0.8 * np.exp(-lead / 18.0), zero, 0.1 * np.minimum(lead, 48.0) / 48.0, zero), -1)
    without = np.stack((0.12 * np.exp(-(((lead - 14.0) / 10.0) ** 2)), deviation), -1)
    return with_forecast, without


def fit_correction(history: History, lag: int) -> Correction:
    """Return the correction fitted on ``history``.

    Args:
        history: Available recorded intensities and forecasts.
        lag: Delay in hours after which an intensity is known; 1 excludes the current hour.

    """
    lead = np.arange(MAX_LEAD)
    with_forecast, without = prior_weights(lead.astype(np.float64))
    forecast_error, history_error = _prior_error(FORECAST_ERROR), _prior_error(HISTORY_ERROR)
    end = history.known_until
    last = end // DAY * DAY
    hours = np.arange(max(history.first + DAY, last - FIT_DAYS * DAY), last, FIT_EVERY)
    if not len(hours):
        return Correction(with_forecast, without, forecast_error, history_error, np.zeros(MAX_LEAD))
    features = compute_features(history, hours, MAX_LEAD, lag)
    ahead = hours[:, np.newaxis] + lead
    target = np.where(np.isfinite(features.recorded), np.nan, history.recorded(ahead)) / features.scale
    decay = 0.5 ** ((last - hours) / DAY / FIT_HALF_LIFE)
    enough_issuances = int((history.issued <= end - DAY).sum()) >= MIN_ISSUANCES
    prediction = features.baseline
    if len(history.issued):
        with_forecast, forecast_error, prediction = _fit(
            with_forecast, features.forecast_terms, target, features.baseline, features.scale, decay, forecast_error,
            learn=enough_issuances,
        )  # fmt: skip
    enough_days = (last - history.first) // DAY > MIN_DAYS
    without, history_error, history_prediction = _fit(
        without, features.history_terms, target, features.climatology, features.scale, decay, history_error,
        learn=enough_days,
    )  # fmt: skip
    share = np.zeros(MAX_LEAD)
    if enough_issuances:
        share, forecast_error = fit_history_share(
            target - prediction, history_prediction - prediction, decay, forecast_error
        )
    return Correction(with_forecast, without, forecast_error, history_error, share)


def fit_history_share(residual: Array, difference: Array, decay: Array, error: Array) -> tuple[Array, Array]:
    """Return the weight of the history-only prediction, the same for every lead time, and the errors that remain.

    A plan depends on the order of the hours, not on their common level. The share, from 0 to 1, therefore minimizes the
    error of the *differences* between the hours of the next two days.

    Args:
        residual: Errors of the corrected forecasts, as a fraction of the mean intensity, shape ``(t, leads)``.
        difference: History-only prediction minus corrected forecast, in the same unit and shape.
        decay: Weight of each decision hour, shape ``(t,)``.
        error: Root mean square of ``residual`` at each lead time, shape ``(leads,)``.

    Returns:
        The share and the root mean square errors with it, both of shape ``(leads,)``.

    """
    valid = np.isfinite(residual) & np.isfinite(difference)
    residual, difference = np.where(valid, residual, 0.0), np.where(valid, difference, 0.0)
    weight = decay[:, np.newaxis]
    near = slice(0, SHARE_HOURS)
    x, y = (_center_rows(series[:, near], valid[:, near]) for series in (difference, residual))
    days = float((valid[:, near] * weight).sum()) / (DAY / FIT_EVERY) / SHARE_HOURS
    square, product = float((weight * x**2).sum()), float((weight * x * y).sum())
    if days < 1 or square <= 0:
        return np.zeros(len(error)), error
    share = min(1.0, max(0.0, product / (square * (1.0 + SHARE_PRIOR_DAYS / days))))
    remaining = error.copy()
    for low, high in itertools.pairwise(LEAD_BANDS):
        before = float((weight * residual[:, low:high] ** 2).sum())
        after = float((weight * (residual - share * difference)[:, low:high] ** 2).sum())
        remaining[low:high] *= np.sqrt(after / before) if before > 0 else 1.0
    return np.full(len(error), share), remaining


def _center_rows(values: Array, valid: NDArray[np.bool_]) -> Array:
    """Return ``values`` minus the mean of each row; 0 where invalid."""
    mean = values.sum(axis=1, keepdims=True) / np.maximum(1, valid.sum(axis=1, keepdims=True))
    return np.where(valid, values - mean, 0.0)


def _prior_error(day_ahead: float) -> Array:
    """Return the assumed error of each lead time, as a fraction of the mean intensity, shape ``(leads,)``."""
    return day_ahead * (0.5 + 0.5 * np.minimum(np.arange(MAX_LEAD), 24) / 24)


def _fit(
    prior: Array,
    terms: Array,
    target: Array,
    base: Array,
    scale: Array,
    decay: Array,
    prior_error: Array,
    *,
    learn: bool,
) -> tuple[Array, Array, Array]:
    """Return the weights and the error of each lead time, and the predictions, all relative to ``scale``.

    Args:
        prior: Prior weights, shape ``(leads, p)``.
        terms: Terms that the weights multiply, shape ``(t, leads, p)``.
        target: Recorded intensity relative to ``scale``, NaN where unknown, shape ``(t, leads)``.
        base: Prediction that the terms are added to, shape ``(t, leads)``.
        scale: Mean intensity, shape ``(t, 1)``.
        decay: Weight of each decision hour, shape ``(t,)``.
        prior_error: Assumed error, shape ``(leads,)``.
        learn: Whether to fit the weights; otherwise the prior is kept and only the error is estimated.

    """
    weights, error = prior.copy(), prior_error.copy()
    base = base / scale
    x, y = terms / scale[..., np.newaxis], target - base
    valid = np.isfinite(y) & np.isfinite(x).all(axis=-1)
    x, y = np.where(valid[..., np.newaxis], x, 0.0), np.where(valid, y, 0.0)
    count = valid * decay[:, np.newaxis]
    for low, high in itertools.pairwise(LEAD_BANDS):
        band_x, band_y, share = x[:, low:high], y[:, low:high], count[:, low:high]
        total = float(share.sum())
        days = total / (DAY / FIT_EVERY) / (high - low)
        if days < 1:
            continue
        residual = band_y - np.einsum("tkp,kp->tk", band_x, prior[low:high])
        if learn:
            flat = band_x.reshape(-1, x.shape[-1])
            weighted = flat * share.reshape(-1, 1)
            gram, moment = flat.T @ weighted, weighted.T @ residual.ravel()
            diagonal = np.diag(gram)
            ridge = np.diag(PRIOR_DAYS / days * diagonal + 1e-9 * max(1e-12, float(diagonal.max())))
            change = np.linalg.solve(gram + ridge, moment)
            weights[low:high] += change
            residual = residual - band_x @ change
        square = float((share * residual**2).sum())
        # The prior error counts as two days, so that one accurate day does not make a forecast certain.
        error[low:high] = np.sqrt((square / total * days + 2.0 * error[low:high] ** 2) / (days + 2.0))
    return weights, error, base + np.einsum("tkp,kp->tk", x, weights)
