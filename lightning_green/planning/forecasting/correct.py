"""Correct a forecast with the errors of earlier forecasts and the recent history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correction import DailyCorrection
from lightning_green.planning.forecasting.features import BIAS_DAYS, DAY, compute_features
from lightning_green.planning.forecasting.history import HOUR, History, build_history, hourly
from lightning_green.utilities.validation import check_aware

Array = NDArray[np.float64]

HORIZON = 4 * DAY
MAX_HISTORY_AGE = 2 * DAY
EXACT_TOLERANCE = 1e-3


def correct(
    forecast: Forecast, issuances: Sequence[Forecast], now: datetime, daily: DailyCorrection | None = None
) -> Forecast:
    """Return a corrected forecast with a standard deviation for every hour.

    The bias of earlier issuances is removed, the error of the last hours is carried forward, and a history-only
    prediction is blended in. The weights of each lead time are fitted if there are at least seven issuances, and come
    from a prior otherwise; see `lightning_green.planning.forecasting.correction`. Hours of the next four days that the
    forecast does not cover are predicted from the history. An empty forecast is replaced by a history-only one.

    The forecast is returned unchanged if there is nothing to learn from: no history in the last two days, no earlier
    issuance, or issuances that were always exact (a recorded trace).

    Args:
        forecast: Newest forecast with a history of the same kind. Empty: predict from the history alone.
        issuances: Earlier forecasts with their ``issued_at``. Those of another kind are ignored.
        now: Current time, aware.
        daily: Fit of the day, to share between calls for the same grid. None: fit again.

    Raises:
        ValueError: If ``now`` is naive.

    Examples:
        ```python
        newest = signal.forecast(now, horizon)
        answer = plan(job, correct(newest, issuances, now), now)
        issuances = remember(issuances, newest)
        ```

    """
    hour = int(check_aware("now", now).timestamp() // HOUR)
    history = build_history(forecast, issuances, hour)
    lag = hour - history.known_until + 1
    if not np.isfinite(history.actual).any() or lag > MAX_HISTORY_AGE:
        return forecast
    has_earlier = len(history.issued) > 1
    if forecast.times and (not has_earlier or _is_exact(history)):
        return forecast
    end = hour + HORIZON if forecast.end is None else max(hour + HORIZON, math.ceil(forecast.end.timestamp() / HOUR))
    features = compute_features(history, np.array([hour]), end - hour, lag)
    values, spread = (daily or DailyCorrection()).at(history, hour, lag).predict(features)
    ahead = [datetime.fromtimestamp((hour + index) * HOUR, timezone.utc) for index in range(end - hour)]
    if not forecast.times:
        return replace(forecast, times=ahead, values=values[0], spread=spread[0])
    return _apply(forecast, hour, ahead, values[0], spread[0])


def remember(issuances: Sequence[Forecast], forecast: Forecast | None) -> list[Forecast]:
    """Return ``issuances`` with ``forecast`` added: at most one per issue hour, from the last 28 days.

    A forecast without values or without an issue time is not added. Histories are dropped, since the next forecast
    brings its own.
    """
    if forecast is None or forecast.issued_at is None or not forecast.times:
        return list(issuances)
    oldest, hour = forecast.issued_at - timedelta(days=BIAS_DAYS), forecast.issued_at.timestamp() // HOUR
    kept = [
        issuance
        for issuance in issuances
        if issuance.issued_at is not None
        and issuance.issued_at >= oldest
        and issuance.issued_at.timestamp() // HOUR != hour
    ]
    return [*kept, replace(forecast, history_times=(), history_values=None)]


def _is_exact(history: History) -> bool:
    """Return whether no forecast so far was wrong by more than a thousandth of the mean intensity."""
    hours = history.issued[:, np.newaxis] + np.arange(history.forecasts.shape[1])
    error = np.abs(history.recorded(hours) - history.forecasts)
    valid = np.isfinite(error)
    return bool(valid.any()) and float(error[valid].max()) <= EXACT_TOLERANCE * float(np.nanmean(history.actual))


def _apply(forecast: Forecast, hour: int, ahead: list[datetime], values: Array, spread: Array) -> Forecast:
    """Return ``forecast`` shifted by the hourly corrections, followed by hourly ``values`` beyond its end."""
    first, means = hourly(forecast.seconds, forecast.values, full=False)
    index = (forecast.seconds // HOUR).astype(int)
    lead = np.clip(index - hour, 0, len(values) - 1)
    shift = values[lead] - means[index - first]
    shift[index < hour] = 0.0
    error = np.where(index < hour, 0.0, spread[lead]) if forecast.spread is None else np.array(forecast.spread)
    end = forecast.end
    assert end is not None
    beyond = [index for index, time in enumerate(ahead) if time >= end]
    times = [*forecast.times, *(ahead[index] for index in beyond)]
    if beyond and ahead[beyond[0]] - end >= timedelta(hours=1):
        return forecast  # it ends before now, so there is nothing to correct
    return replace(
        forecast,
        times=times,
        values=np.concatenate((np.maximum(0.0, forecast.values + shift), values[beyond])),
        spread=np.concatenate((error, spread[beyond])),
    )
