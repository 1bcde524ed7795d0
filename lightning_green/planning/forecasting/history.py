"""Recorded intensities and issued forecasts of a grid, as arrays by hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecast import Forecast

Array = NDArray[np.float64]
HOUR = 3600.0


@dataclass(frozen=True)
class History:
    """Recorded intensities and forecasts by hour. Times are hours since 1970 (UTC).

    Args:
        first: Hour of the first recorded value.
        actual: Recorded intensity of every hour in gCO2e/kWh, NaN in gaps, shape ``(n,)``.
        issued: Hour in which each forecast was issued, ascending, shape ``(m,)``.
        forecasts: Predicted intensity of the hours from ``issued`` on, NaN where missing, shape ``(m, horizon)``.

    """

    first: int
    actual: Array
    issued: NDArray[np.int64]
    forecasts: Array

    @property
    def known_until(self) -> int:
        """Hour after the last recorded one."""
        return self.first + len(self.actual)

    def known_at(self, hour: int, lag: int, memory: int) -> History:
        """Return the part of the history that was known in ``hour``.

        Args:
            hour: Hours since 1970 (UTC).
            lag: Delay in hours after which an intensity is known; 1 excludes ``hour`` itself.
            memory: Number of hours to keep.

        """
        first, until = max(self.first, hour - memory), max(self.first, hour - lag + 1)
        issued = (self.issued <= hour) & (self.issued >= hour - memory)
        actual = self.actual[first - self.first : until - self.first]
        return History(first, actual, self.issued[issued], self.forecasts[issued])

    def recorded(self, hours: NDArray[np.int64]) -> Array:
        """Return the recorded intensity of each of ``hours``; NaN where unknown."""
        if not len(self.actual):
            return np.full(hours.shape, np.nan)
        index = hours - self.first
        inside = (index >= 0) & (index < len(self.actual))
        return np.where(inside, self.actual[np.clip(index, 0, len(self.actual) - 1)], np.nan)

    def predicted(self, issuance: NDArray[np.int64], hours: NDArray[np.int64]) -> Array:
        """Return the intensity of ``hours`` predicted by each issuance.

        Args:
            issuance: Index into ``issued``; -1 for none.
            hours: Hours since 1970; broadcast against ``issuance``.

        Returns:
            Intensity in gCO2e/kWh; NaN where the forecast has no value or the index is -1.

        """
        if not len(self.issued):
            return np.full(np.broadcast_shapes(issuance.shape, hours.shape), np.nan)
        index = np.clip(issuance, 0, len(self.issued) - 1)
        lead = hours - self.issued[index]
        horizon = self.forecasts.shape[1]
        inside = (issuance >= 0) & (lead >= 0) & (lead < horizon)
        return np.where(inside, self.forecasts[index, np.clip(lead, 0, horizon - 1)], np.nan)

    def newest_issuance(self, hours: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the newest forecast issued by each of ``hours``; -1 for none."""
        return np.searchsorted(self.issued, hours, side="right").astype(np.int64) - 1


def build_history(forecast: Forecast, issuances: Sequence[Forecast], hour: int) -> History:
    """Return the recorded values and forecasts that are available in ``hour``.

    ``forecast`` itself is the newest issuance. Partly covered hours, issuances of another kind and issuances without an
    issue time are skipped.

    Args:
        forecast: Newest forecast, with recorded values in its history.
        issuances: Earlier forecasts.
        hour: Current hour, in hours since 1970 (UTC).

    """
    seconds, values = forecast.history_seconds, forecast.history_values
    assert values is not None
    first, actual = hourly(seconds, values, full=True)
    actual = actual[: max(0, hour + 1 - first)]
    rows: dict[int, tuple[int, Array]] = {}
    for issuance in (*issuances, forecast):
        when = issuance.issued_at
        is_usable = when is not None or issuance is forecast
        if not is_usable or issuance.kind != forecast.kind or not issuance.times:
            continue
        issued_hour = hour if when is None else int(when.timestamp() // HOUR)
        if issued_hour <= hour:
            rows[issued_hour] = hourly(issuance.seconds, issuance.values, full=False)
    issued = np.array(sorted(rows), dtype=np.int64)
    horizon = max((begin + len(means) - issued_hour for issued_hour, (begin, means) in rows.items()), default=0)
    table = np.full((len(issued), max(0, horizon)), np.nan)
    for row, issued_hour in enumerate(issued.tolist()):
        begin, means = rows[issued_hour]
        skipped = max(0, issued_hour - begin)
        part = means[skipped:]
        column = begin + skipped - issued_hour
        table[row, column : column + len(part)] = part
    return History(first, actual, issued, table)


def hourly(seconds: Array, values: Array, *, full: bool) -> tuple[int, Array]:
    """Return the first hour and the mean value of every hour; NaN where unknown.

    Args:
        seconds: Start of each interval in POSIX seconds, ascending.
        values: Value of each interval.
        full: Whether to drop the last hour if the values do not cover all of it.

    """
    if not len(seconds):
        return 0, np.empty(0)
    steps = np.diff(seconds)
    # The last interval is as long as the one before it, unless a gap separates them.
    step = min(float(np.median(steps)), float(steps[-1])) if len(steps) else HOUR
    hour = (seconds // HOUR).astype(np.int64)
    first, count = int(hour[0]), int(hour[-1] - hour[0]) + 1
    number = np.bincount(hour - first, minlength=count)
    mean = np.full(count, np.nan)
    np.divide(np.bincount(hour - first, values, count), number, out=mean, where=number > 0)
    if full and seconds[-1] + step < (hour[-1] + 1) * HOUR - 1:
        mean = mean[:-1]
    return first, mean
