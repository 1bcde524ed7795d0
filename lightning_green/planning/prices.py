"""Electricity prices over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.slots import DAY, HOUR, RECENT_DAYS, mean_day
from lightning_green.utilities.validation import check_times

Array = NDArray[np.float64]

_ARRAYS = ("starts", "ends", "prices")
MAX_RECORD_ROWS = 4000
"""Prices in a record: a line of the ledger has at most a megabyte. More of them become hourly means."""
MAX_RECORD_HOURS = 14 * 24
"""Hours of prices that are kept for another process: those of the last week and of the next one."""


@dataclass(frozen=True, eq=False)
class PriceSeries:
    """Electricity prices in money per kWh: intervals of one price each, or one price at all times.

    Prices may be negative. Times outside the intervals are unknown.

    Args:
        starts: Starts of the intervals in POSIX seconds, ascending, shape ``(n,)``.
        ends: Ends of the intervals in POSIX seconds, shape ``(n,)``, each at most the next start.
        prices: Price of each interval in money per kWh, shape ``(n,)``.
        constant: Price at all times, without intervals; None for a series.
        source: Short name of the source, for messages.

    Raises:
        ValueError: If the lengths differ, intervals are empty or overlap, a number is not finite, or no price is given.

    Examples:
        >>> prices = PriceSeries(starts=[0, 3600], ends=[3600, 7200], prices=[0.30, -0.10])
        >>> mean, known = prices.means([0, 3600], [5400, 10800])
        >>> [round(price, 3) for price in mean.tolist()], known.tolist()
        ([0.167, -0.1], [1.0, 0.5])

    """

    starts: Array = field(default_factory=lambda: np.empty(0))
    ends: Array = field(default_factory=lambda: np.empty(0))
    prices: Array = field(default_factory=lambda: np.empty(0))
    constant: float | None = None
    source: str = "price"

    def __post_init__(self) -> None:
        arrays = {name: np.array(getattr(self, name), dtype=np.float64) for name in _ARRAYS}
        starts, ends, prices = arrays.values()
        if not (starts.ndim == 1 and starts.shape == ends.shape == prices.shape):
            raise ValueError(f"`starts`, `ends` and `prices` should have one length, got {starts.shape}.")
        if not all(np.isfinite(one).all() for one in arrays.values()):
            raise ValueError("`starts`, `ends` and `prices` should be finite.")
        if (ends <= starts).any() or (starts[1:] < ends[:-1]).any():
            raise ValueError("The intervals of the prices should be ascending and should not overlap.")
        if self.constant is not None and not math.isfinite(self.constant):
            raise ValueError(f"`constant` should be a finite price, got {self.constant!r}.")
        if (self.constant is None) == (not len(starts)):
            raise ValueError(f"The prices of {self.source} should be a series or a constant, got none or both.")
        for name, value in arrays.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_points(cls, points: Iterable[tuple[datetime, float | None]], source: str = "price") -> PriceSeries:
        """Return a series in which a price is valid until the next time, and for an hour at most.

        Args:
            points: ``(start, price)``, aware, strictly ascending; None for an unknown price. The last one is valid for
                as long as the one before it.
            source: Short name of the source, for messages.

        Raises:
            ValueError: If a time is naive or out of order, a price is not finite, or there is none.

        """
        pairs = list(points)
        seconds = check_times("times", [time for time, _ in pairs])
        last = seconds[-1] - seconds[-2] if len(seconds) > 1 else HOUR
        ends = np.minimum(np.append(seconds[1:], seconds[-1:] + last), seconds + HOUR)
        known = np.array([price is not None for _, price in pairs], dtype=bool)
        prices = np.array([price for _, price in pairs if price is not None], dtype=np.float64)
        return cls(seconds[known], ends[known], prices, source=source)

    def means(self, starts: Any, ends: Any) -> tuple[Array, Array]:
        """Return the mean price of each interval, and the fraction of its time whose price is known.

        Args:
            starts: Starts of the intervals in POSIX seconds, shape ``(n,)``.
            ends: Ends of the intervals in POSIX seconds, shape ``(n,)``; an interval may be empty.

        Returns:
            The mean price of the known part in money per kWh, 0 if none is known, and the known fraction.

        """
        first, last = np.asarray(starts, dtype=np.float64), np.asarray(ends, dtype=np.float64)
        if self.constant is not None:
            return np.full(len(first), float(self.constant)), np.ones(len(first))
        edges, elapsed, money = self._sums
        length = last - first
        known = np.interp(last, edges, elapsed) - np.interp(first, edges, elapsed)
        paid = np.interp(last, edges, money) - np.interp(first, edges, money)
        known = np.where(known > 1e-6, known, 0.0)
        mean = np.divide(paid, known, out=np.zeros_like(paid), where=known > 0.0)
        share = np.divide(known, length, out=np.zeros_like(known), where=length > 0.0)
        empty = length <= 0.0
        if empty.any():
            at = np.searchsorted(self.starts, first[empty], side="right") - 1
            valid = (at >= 0) & (first[empty] < self.ends[np.maximum(at, 0)])
            mean[empty], share[empty] = np.where(valid, self.prices[np.maximum(at, 0)], 0.0), valid
        share = np.where(share > 1.0 - 1e-9, 1.0, share)
        return mean, share

    @cached_property
    def _sums(self) -> tuple[Array, Array, Array]:
        """Edges of the intervals, and the known time and the sum of prices x seconds up to each of them."""
        edges = np.unique(np.concatenate((self.starts, self.ends)))
        position = np.searchsorted(self.starts, edges[:-1], side="right") - 1
        seconds = np.where(edges[:-1] < self.ends[position], np.diff(edges), 0.0)
        elapsed, money = np.cumsum(seconds), np.cumsum(seconds * self.prices[position])
        return edges, np.append(0.0, elapsed), np.append(0.0, money)

    def outlook(self, starts: Array, ends: Array) -> tuple[Array, Array]:
        """Return the mean price of each future interval with estimates, and the fraction that is not estimated.

        Unknown hours have the mean price of the same hour of the day (UTC) over the last seven days of the series.
        The arguments are those of `means`.
        """
        mean, share = self.means(starts, ends)
        unknown = np.flatnonzero((share < 1.0) & (ends > starts))
        if not len(unknown):
            return mean, share
        recent = self.starts > self.starts[-1] - RECENT_DAYS * DAY
        day = mean_day(self.starts[recent], self.prices[recent], (self.ends - self.starts)[recent])
        for index in unknown:
            edges = np.append(np.arange(np.floor(starts[index] / HOUR) * HOUR, ends[index], HOUR), ends[index])
            edges[0] = starts[index]
            paid, known = self.means(edges[:-1], edges[1:])
            typical = day[(edges[:-1] // HOUR).astype(int) % 24]
            hourly = paid * known + typical * (1.0 - known)
            mean[index] = hourly @ np.diff(edges) / (ends[index] - starts[index])
        return mean, share

    def between(self, start: float, end: float) -> PriceSeries:
        """Return the intervals that start between two times (POSIX seconds); a constant is returned as it is.

        Raises:
            ValueError: If there is none.

        """
        if self.constant is not None:
            return self
        kept = (self.starts >= start) & (self.starts < end)
        return replace(self, **{name: getattr(self, name)[kept] for name in _ARRAYS})

    def changes(self, start: float, end: float) -> Array:
        """Return the times from ``start`` to ``end`` (POSIX seconds) at which the price changes."""
        edges = np.empty(0) if self.constant is not None else self._sums[0]
        return edges[(edges > start) & (edges < end)]

    def __str__(self) -> str:
        return self.source if self.constant is None else f"{self.constant:g} per kWh"

    def to_json(self, now: float | None = None) -> dict[str, Any]:
        """Return the prices as JSON data, for another process. See `from_json`.

        Args:
            now: Current time in POSIX seconds: only the prices of the week before and after it are included, or the
                last ones if there are none; None for all.

        """
        if self.constant is not None:
            return {"constant": self.constant}
        near = np.abs(self.starts - (self.starts if now is None else now)) <= MAX_RECORD_HOURS / 2 * HOUR
        if not near.any():
            near[-min(len(near), MAX_RECORD_HOURS) :] = True
        kept = replace(self, **{name: getattr(self, name)[near] for name in _ARRAYS})
        if len(kept.starts) > MAX_RECORD_ROWS:
            kept = kept.hourly()
        return {name: getattr(kept, name).tolist() for name in _ARRAYS}

    def hourly(self) -> PriceSeries:
        """Return the mean prices of the hours of which a part is known."""
        starts = np.arange(np.floor(self.starts[0] / HOUR), np.ceil(self.ends[-1] / HOUR)) * HOUR
        prices, share = self.means(starts, starts + HOUR)
        known = share > 0.0
        return replace(self, starts=starts[known], ends=starts[known] + HOUR, prices=prices[known])

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PriceSeries:
        """Return the prices written by `to_json`.

        Raises:
            ValueError: If the data has another form or a number is out of its range.

        """
        try:
            if content.get("constant") is not None:
                return cls(constant=float(content["constant"]))
            return cls(*(content[name] for name in _ARRAYS))
        except (KeyError, TypeError):
            raise ValueError(f"A record of prices should have {', '.join(_ARRAYS)}, got {content!r}.") from None
