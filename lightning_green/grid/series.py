"""Piecewise constant values over time: lookup, exact integral, slices."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecast import Forecast

HISTORY = timedelta(days=8)
"""Length of the history in a forecast: a week, for the mean of the same hour, and one more day."""


class Series:
    """Piecewise constant carbon intensity.

    Args:
        points: ``(start, gCO2e/kWh)``, aware, strictly ascending.
        step: Interval that the last value is valid for; None for the length of the previous one, or an hour.
        gap: Longest interval that one value may be valid for; later times are unknown. None for no limit.

    """

    def __init__(
        self, points: Iterable[tuple[datetime, float]], step: timedelta | None = None, gap: timedelta | None = None
    ) -> None:
        pairs = [(time.timestamp(), float(value)) for time, value in points]
        self.starts = np.array([start for start, _ in pairs], dtype=np.float64)
        self.values = np.array([value for _, value in pairs], dtype=np.float64)
        if step is not None:
            last = step.total_seconds()
        else:
            last = float(self.starts[-1] - self.starts[-2]) if len(pairs) > 1 else 3600.0
        ends = np.append(self.starts[1:], self.starts[-1:] + last)
        self.ends = ends if gap is None else np.minimum(ends, self.starts + gap.total_seconds())

    def __len__(self) -> int:
        return len(self.starts)

    def index(self, at: float) -> int | None:
        """Return the index of the value that is valid at ``at`` (seconds since the epoch), or None."""
        position = self.before(at)
        return position if position is not None and at < self.ends[position] else None

    def before(self, at: float) -> int | None:
        """Return the index of the newest value at or before ``at`` (seconds since the epoch), or None."""
        position = bisect_right(self.starts, at) - 1
        return position if position >= 0 else None

    def at(self, at: datetime) -> tuple[datetime, float] | None:
        """Return the start and the value of the interval that contains ``at``, or None."""
        position = self.index(at.timestamp())
        return None if position is None else (utc(self.starts[position]), float(self.values[position]))

    def mean(self, start: datetime, end: datetime) -> float | None:
        """Return the exact time-weighted mean from ``start`` to ``end``; None if a part of it is unknown."""
        first, last = start.timestamp(), end.timestamp()
        position = self.index(first)
        if position is None or last <= first:
            return None if position is None else float(self.values[position])
        parts, at = [], first
        while at < last:
            if position >= len(self.starts) or not self.starts[position] <= at < self.ends[position]:
                return None
            until = min(last, float(self.ends[position]))
            parts.append(float(self.values[position]) * (until - at))
            at, position = until, position + 1
        return math.fsum(parts) / (last - first)

    def slice(self, start: datetime, end: datetime) -> tuple[list[datetime], NDArray[np.float64]]:
        """Return the starts and values of the intervals that touch ``start`` to ``end``."""
        low = max(0, bisect_right(self.starts, start.timestamp()) - 1)
        if low < len(self.starts) and self.ends[low] <= start.timestamp():
            low += 1  # the newest value before the start is not valid at the start
        high = max(low, bisect_left(self.starts, end.timestamp()))
        return [utc(start) for start in self.starts[low:high].tolist()], self.values[low:high].copy()

    def forecast(self, now: datetime, horizon: timedelta, kind: str, issued_at: datetime | None) -> Forecast | None:
        """Return the intervals from ``now`` to ``now + horizon`` with the ``HISTORY`` before them, or None."""
        if self.index(now.timestamp()) is None:
            return None
        times, values = self.slice(now, now + max(horizon, timedelta(seconds=1)))
        past_times, past_values = self.slice(now - HISTORY, times[0])
        return Forecast(
            times=times,
            values=values,
            kind=kind,
            issued_at=issued_at,
            history_times=past_times,
            history_values=past_values if past_times else None,
        )

    def covers_until(self) -> datetime | None:
        """Return the end of the last interval; None for an empty series."""
        return utc(self.ends[-1]) if len(self.ends) else None

    def step(self) -> timedelta:
        """Return the shortest interval between two values; an hour if there are fewer than two."""
        return timedelta(seconds=float(np.diff(self.starts).min())) if len(self) > 1 else timedelta(hours=1)


def utc(timestamp: float) -> datetime:
    """Return ``timestamp`` (seconds since the epoch) as an aware datetime in UTC."""
    return datetime.fromtimestamp(float(timestamp), timezone.utc)


def grid_times(now: datetime, horizon: timedelta, step: timedelta) -> Sequence[datetime]:
    """Return the starts of the intervals of ``step``, aligned to it, that touch ``now`` to ``now + horizon``."""
    width = step.total_seconds()
    first = math.floor(now.timestamp() / width)
    last = math.ceil((now.timestamp() + max(horizon.total_seconds(), 1.0)) / width)
    return [utc(index * width) for index in range(first, last)]
