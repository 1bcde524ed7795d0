"""The time axis of a plan: intensity from now to the horizon, cut into slots of 5 minutes to 1 hour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecast import Forecast

Array = NDArray[np.float64]

HOUR = 3600.0
DAY = 86400.0
SHORTEST, LONGEST = 300.0, HOUR
RECENT_DAYS = 7
FINE_HOURS = 24.0
"""So far ahead slots keep the forecast's own resolution where a plan would otherwise have too many of them."""
MANY_SLOTS = 800


@dataclass(frozen=True)
class Slots:
    """Consecutive slots from now on.

    Args:
        edges: Slot borders in hours from now, ascending from 0, shape ``(n + 1,)``.
        values: Mean carbon intensity of each slot in gCO2e/kWh, shape ``(n,)``.
        spread: Standard deviation of each value, shape ``(n,)``, or None where nothing is known about it.
        filled_hours: Hours up to the horizon that the forecast says nothing about.

    """

    edges: Array
    values: Array
    spread: Array | None
    filled_hours: float

    @property
    def hours(self) -> Array:
        """Length of each slot in hours, shape ``(n,)``."""
        return np.diff(self.edges)


def make_slots(forecast: Forecast, now: float, horizon_hours: float) -> Slots | None:
    """Return the slots from ``now`` (POSIX seconds) to ``now + horizon_hours``, or None where nothing is known.

    Hours that the forecast leaves open are filled with the mean of the same time of the last seven days of the history
    and, without a history, with the forecast's own last 24 hours; never with its last value.

    Slots follow from the intensity as a function of time alone: neighbours of the same value are joined and cut anew,
    so a forecast with a slot split in two gives the same plan.
    """
    end = now + horizon_hours * HOUR
    starts, values, spread = _steps(forecast)
    if not len(values) or starts[-1] <= now:
        starts, values, spread = np.empty(1), np.empty(0), None
        starts[0] = now
    covered = max(0.0, min(starts[-1], end) - max(starts[0], now)) / HOUR
    parts: list[tuple[Array, Array, Array | None]] = []
    if starts[0] > now:
        head = _fill(forecast, now, min(starts[0], end), before=True)
        if head is None:
            return None
        parts.append(head)
    if len(values):
        parts.append((starts, values, spread))
    if starts[-1] < end:
        tail = _fill(forecast, starts[-1], end, before=False)
        if tail is None:
            return None
        parts.append(tail)
    begins = np.concatenate([part[0][:-1] for part in parts] + [parts[-1][0][-1:]])
    level = np.concatenate([part[1] for part in parts])
    known = all(part[2] is not None for part in parts[:1]) and spread is not None
    error = np.concatenate([_or_last(part[2], part[1], spread) for part in parts]) if known else None
    edges, level, error = _cut(begins, level, error, now, end)
    return Slots((edges - now) / HOUR, level, error, horizon_hours - covered)


def _steps(forecast: Forecast) -> tuple[Array, Array, Array | None]:
    """Return the forecast as a step function: ``n + 1`` borders, ``n`` values, ``n`` spreads."""
    starts = forecast.seconds
    if not len(starts):
        return starts, np.empty(0), None
    last = starts[-1] - starts[-2] if len(starts) > 1 else HOUR
    return np.append(starts, starts[-1] + last), forecast.values, forecast.spread


def _or_last(error: Array | None, values: Array, known: Array | None) -> Array:
    """Return ``error``; where it is unknown, the widest of the forecast's own spreads."""
    if error is not None:
        return error
    return np.full(len(values), float(known.max()) if known is not None and len(known) else 0.0)


def _fill(forecast: Forecast, start: float, end: float, *, before: bool) -> tuple[Array, Array, None] | None:
    """Return hourly values for an interval that the forecast leaves open, as a step function."""
    days = same_hour_of_recent_days(forecast)
    if days is None:
        steps, values, _ = _steps(forecast)
        if not len(values):
            return None
        last = slice(0, len(values)) if before else slice(int(np.searchsorted(steps, steps[-1] - DAY)), len(values))
        days = _by_hour(steps[:-1][last], values[last], np.diff(steps)[last])
    first = np.floor(start / HOUR) * HOUR
    borders = np.arange(first, end, HOUR)
    filled = days[(borders // HOUR).astype(int) % 24]
    # Whole hours at either end of the plan, which is cut later: pieces of a part of an hour would be of odd lengths.
    borders = np.append(borders, end if before else borders[-1] + HOUR)
    borders[0] = first if before else start
    return borders, filled, None


def same_hour_of_recent_days(forecast: Forecast) -> Array | None:
    """Return the mean intensity of each UTC hour over the last seven days of the history, shape ``(24,)``."""
    times, values = forecast.history_seconds, forecast.history_values
    if values is None or not len(times):
        return None
    recent = times > times[-1] - RECENT_DAYS * DAY
    return _by_hour(times[recent], values[recent], np.ones(int(recent.sum())))


def _by_hour(times: Array, values: Array, weights: Array) -> Array:
    """Return the weighted mean of each UTC hour, and the mean of all where an hour has no value."""
    hour = (times // HOUR).astype(int) % 24
    weight = np.bincount(hour, weights, 24)
    total = np.bincount(hour, weights * values, 24)
    mean = float(total.sum() / weight.sum())
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), mean)


def _cut(
    begins: Array, values: Array, spread: Array | None, now: float, end: float
) -> tuple[Array, Array, Array | None]:
    """Return edges, values and spreads of slots between ``now`` and ``end`` that follow from the step function."""
    error = np.zeros(len(values)) if spread is None else spread
    change = (np.diff(values) != 0) | (np.diff(error) != 0)
    keep = np.flatnonzero(np.concatenate(([True], change)))
    borders = np.append(begins[keep], begins[-1])
    # As fine as the finest change, so that equal neighbours are decided one by one as unequal ones are.
    inner = np.diff(borders)[1:-1] if len(keep) > 2 else np.diff(borders)
    step = float(np.clip(inner.min(), SHORTEST, LONGEST))
    pieces = np.maximum(1, np.ceil(np.diff(borders) / step - 1e-6)).astype(int)
    if pieces.max() > 1:
        index = np.repeat(np.arange(len(keep)), pieces)
        within = np.arange(len(index)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        edges = borders[index] + within * (np.diff(borders) / pieces)[index]
        edges = np.append(edges, borders[-1])
    else:
        index, edges = np.arange(len(keep)), borders
    source = keep[index]
    inside = (edges[1:] > now + 1e-6) & (edges[:-1] < end - 1e-6)
    level, error = values[source][inside], error[source][inside]
    first = int(np.argmax(inside))
    edges = np.clip(edges[first : first + len(level) + 1], now, end)
    edges, level, error = _join_far(edges, level, error, now)
    return edges, level, None if spread is None else error


def _join_far(edges: Array, values: Array, error: Array, now: float) -> tuple[Array, Array, Array]:
    """Join slots to hours beyond the first day where there are very many, and to 5 minutes where they are shorter.

    A plan is made again long before the far slots come near; their fine structure would only cost time.
    """
    coarse = np.full(len(values), SHORTEST if np.diff(edges).min() < SHORTEST * 0.99 else 0.0)
    if len(values) > MANY_SLOTS:
        coarse[edges[:-1] >= now + FINE_HOURS * HOUR] = LONGEST
    if not coarse.any():
        return edges, values, error
    block = np.where(coarse > 0, np.floor(edges[:-1] / np.where(coarse > 0, coarse, 1.0)), edges[:-1])
    new = np.flatnonzero(np.concatenate(([True], (np.diff(block) != 0) | (np.diff(coarse) != 0))))
    hours = np.diff(edges)
    length = np.add.reduceat(hours, new)
    joined = np.add.reduceat(hours * values, new) / length
    # Errors of neighbours go together, so their mean is as uncertain as they are.
    return np.append(edges[new], edges[-1]), joined, np.add.reduceat(hours * error, new) / length
