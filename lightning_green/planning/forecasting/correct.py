"""Correct a forecast by what its predecessors got wrong and by what the recent days were like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correction import BIAS_DAYS, DAY, clues, learn
from lightning_green.planning.forecasting.history import HOUR, Past, hourly, past_of
from lightning_green.utilities.validation import check_aware

Array = NDArray[np.float64]

HORIZON = 4 * DAY
STALE_HOURS = 2 * DAY
EXACT = 1e-3


def correct(forecast: Forecast, issues: Sequence[Forecast], now: datetime) -> Forecast:
    """Return a better forecast, with a spread, made from ``forecast``, its history and its predecessors.

    The bias of the earlier issues is taken off, the error of the last hours is carried on, and what history alone would
    say is blended in, with weights for each lead that are learned where at least seven issues are past and come from a
    prior before; see :mod:`lightning_green.planning.forecasting.correction`. Hours of the next four days that the
    forecast does not reach are filled from the history, and an empty one is made from the history alone.

    The forecast is returned as it is where there is nothing to learn from: no history, or one whose last two days are
    missing; no earlier issue; issues that were never wrong (a recorded trace).

    Args:
        forecast: The newest forecast with the history of the same kind; empty for the history alone.
        issues: Earlier forecasts with their ``issued_at``; those of another kind are left out.
        now: The time, aware.

    Raises:
        ValueError: If ``now`` is naive.

    Example::

        newest = signal.forecast(now, horizon)
        answer = plan(job, correct(newest, issues, now), now)
        issues = remember(issues, newest)

    """
    hour = int(check_aware("now", now).timestamp() // HOUR)
    past = past_of(forecast, issues, hour)
    lag = hour - past.known_until + 1
    if not np.isfinite(past.actual).any() or lag > STALE_HOURS:
        return forecast
    earlier = len(past.issued) > 1
    if forecast.times and (not earlier or _exact(past)):
        return forecast
    end = hour + HORIZON if forecast.end is None else max(hour + HORIZON, math.ceil(forecast.end.timestamp() / HOUR))
    values, spread = learn(past, lag).predict(clues(past, np.array([hour]), end - hour, lag))
    ahead = [datetime.fromtimestamp((hour + index) * HOUR, timezone.utc) for index in range(end - hour)]
    if not forecast.times:
        return replace(forecast, times=ahead, values=values[0], spread=spread[0])
    return _onto(forecast, hour, ahead, values[0], spread[0])


def remember(issues: Sequence[Forecast], forecast: Forecast | None) -> list[Forecast]:
    """Return ``issues`` with ``forecast`` added: one for each hour of issue, of the last 28 days.

    What has no values or no time of issue is not kept; its history is left out, since the next forecast brings it.
    """
    if forecast is None or forecast.issued_at is None or not forecast.times:
        return list(issues)
    oldest, hour = forecast.issued_at - timedelta(days=BIAS_DAYS), forecast.issued_at.timestamp() // HOUR
    kept = [
        issue
        for issue in issues
        if issue.issued_at is not None and issue.issued_at >= oldest and issue.issued_at.timestamp() // HOUR != hour
    ]
    return [*kept, replace(forecast, history_times=(), history_values=None)]


def _exact(past: Past) -> bool:
    """Return whether the forecasts so far were never wrong by more than a thousandth of the mean intensity."""
    hours = past.issued[:, np.newaxis] + np.arange(past.forecasts.shape[1])
    error = np.abs(past.at(hours) - past.forecasts)
    seen = np.isfinite(error)
    return bool(seen.any()) and float(error[seen].max()) <= EXACT * float(np.nanmean(past.actual))


def _onto(forecast: Forecast, hour: int, ahead: list[datetime], values: Array, spread: Array) -> Forecast:
    """Return ``forecast`` moved by the hourly corrections, and hourly ``values`` where it does not reach."""
    first, own = hourly(forecast.seconds, forecast.values, full=False)
    place = (forecast.seconds // HOUR).astype(int)
    lead = np.clip(place - hour, 0, len(values) - 1)
    moved = values[lead] - own[place - first]
    moved[place < hour] = 0.0
    error = np.where(place < hour, 0.0, spread[lead]) if forecast.spread is None else np.array(forecast.spread)
    end = forecast.end
    assert end is not None
    rest = [index for index, time in enumerate(ahead) if time >= end]
    times = [*forecast.times, *(ahead[index] for index in rest)]
    if rest and ahead[rest[0]] - end >= timedelta(hours=1):
        return forecast  # it ended before now: nothing of it is left to correct
    return replace(
        forecast,
        times=times,
        values=np.concatenate((np.maximum(0.0, forecast.values + moved), values[rest])),
        spread=np.concatenate((error, spread[rest])),
    )
