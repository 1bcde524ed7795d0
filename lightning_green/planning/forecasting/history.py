"""What is known of a grid at one time: recorded intensities and the forecasts that were issued, hour by hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecast import Forecast

Array = NDArray[np.float64]
HOUR = 3600.0


@dataclass(frozen=True)
class Past:
    """Recorded intensities and forecasts by hour; times are hours since 1970 (UTC).

    Args:
        first: Hour of the first recorded value.
        actual: Recorded intensity of every hour in gCO2e/kWh, NaN in gaps, shape ``(n,)``.
        issued: Hour in which each forecast was issued, ascending, shape ``(m,)``.
        forecasts: What each said about the hours from ``issued`` on, NaN where nothing, shape ``(m, horizon)``.

    """

    first: int
    actual: Array
    issued: NDArray[np.int64]
    forecasts: Array

    @property
    def known_until(self) -> int:
        """Hour after the last recorded one."""
        return self.first + len(self.actual)

    def at(self, hours: NDArray[np.int64]) -> Array:
        """Return the recorded intensity of each of ``hours``; NaN where it is not known."""
        if not len(self.actual):
            return np.full(hours.shape, np.nan)
        place = hours - self.first
        inside = (place >= 0) & (place < len(self.actual))
        return np.where(inside, self.actual[np.clip(place, 0, len(self.actual) - 1)], np.nan)

    def said(self, issue: NDArray[np.int64], hours: NDArray[np.int64]) -> Array:
        """Return what forecast number ``issue`` says about ``hours``; NaN where nothing, or where it is negative."""
        if not len(self.issued):
            return np.full(np.broadcast_shapes(issue.shape, hours.shape), np.nan)
        chosen = np.clip(issue, 0, len(self.issued) - 1)
        lead = hours - self.issued[chosen]
        horizon = self.forecasts.shape[1]
        inside = (issue >= 0) & (lead >= 0) & (lead < horizon)
        return np.where(inside, self.forecasts[chosen, np.clip(lead, 0, horizon - 1)], np.nan)

    def newest(self, hours: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the newest forecast that was issued by each of ``hours``; -1 for none."""
        return np.searchsorted(self.issued, hours, side="right").astype(np.int64) - 1


def past_of(forecast: Forecast, issues: Sequence[Forecast], hour: int) -> Past:
    """Return what ``forecast``, its history and earlier ``issues`` say, known in the hour ``hour``.

    The forecast itself is the newest issue. Hours that are not covered in full are left out, and so are issues of
    another kind and those without a time of issue.
    """
    seconds, values = forecast.history_seconds, forecast.history_values
    assert values is not None
    first, actual = hourly(seconds, values, full=True)
    actual = actual[: max(0, hour + 1 - first)]
    rows: dict[int, tuple[int, Array]] = {}
    for issue in (*issues, forecast):
        when = issue.issued_at
        if (when is None and issue is not forecast) or issue.kind != forecast.kind or not issue.times:
            continue
        made = hour if when is None else int(when.timestamp() // HOUR)
        if made <= hour:
            rows[made] = hourly(issue.seconds, issue.values, full=False)
    issued = np.array(sorted(rows), dtype=np.int64)
    horizon = max((begin + len(said) - made for made, (begin, said) in rows.items()), default=0)
    table = np.full((len(issued), max(0, horizon)), np.nan)
    for row, made in enumerate(issued.tolist()):
        begin, said = rows[made]
        skip = max(0, made - begin)
        part = said[skip:]
        at = begin + skip - made
        table[row, at : at + len(part)] = part
    return Past(first, actual, issued, table)


def hourly(seconds: Array, values: Array, *, full: bool) -> tuple[int, Array]:
    """Return the first hour and the mean of every hour; NaN where nothing is known.

    Args:
        seconds: Start of each interval in POSIX seconds, ascending.
        values: Value of each interval.
        full: Whether an hour at either end counts only where its values reach over all of it.

    """
    if not len(seconds):
        return 0, np.empty(0)
    steps = np.diff(seconds)
    # The last value holds as long as the one before it, but for a gap between them.
    step = min(float(np.median(steps)), float(steps[-1])) if len(steps) else HOUR
    hour = (seconds // HOUR).astype(np.int64)
    first, count = int(hour[0]), int(hour[-1] - hour[0]) + 1
    number = np.bincount(hour - first, minlength=count)
    mean = np.full(count, np.nan)
    np.divide(np.bincount(hour - first, values, count), number, out=mean, where=number > 0)
    if full and seconds[-1] + step < (hour[-1] + 1) * HOUR - 1:
        mean = mean[:-1]
    return first, mean
