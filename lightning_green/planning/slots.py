"""The time axis of a plan: intensity from now to the horizon, cut into slots.

A slot lasts 5 minutes to 1 hour in the next four weeks, and up to a day later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecast import Forecast

Array = NDArray[np.float64]

HOUR = 3600.0
DAY = 86400.0
MIN_SECONDS, MAX_SECONDS = 300.0, HOUR
RECENT_DAYS = 7
MIN_SPLIT_HOURS = 1 / 60
MIN_SLOT_HOURS = MIN_SECONDS / HOUR
"""Least distance of an additional edge from the others in hours."""
FINE_HOURS = 24.0
"""Hours ahead in which slots keep the resolution of the forecast if there were more than ``MAX_SLOTS`` otherwise."""
MAX_SLOTS = 800
FAR_HOURS = 14 * 24.0
"""Hours ahead from which slots last an hour at least. Slots of ``n`` hours begin ``n`` times as far ahead."""
FAR_LENGTHS = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 24.0]) * HOUR
"""Lengths of far slots in seconds, all of them parts of a day."""


@dataclass(frozen=True)
class Slots:
    """Consecutive slots that start now.

    Args:
        edges: Slot edges in hours from now, ascending from 0, shape ``(n + 1,)``.
        values: Mean carbon intensity of each slot in gCO2e/kWh, shape ``(n,)``.
        spread: Standard deviation of each value, shape ``(n,)``, or None if unknown.
        filled_hours: Hours before the horizon that the forecast does not cover.
        fine_hours: Longest horizon in hours at which no slots of the first 14 days are joined to hours; at most the
            horizon.

    """

    edges: Array
    values: Array
    spread: Array | None
    filled_hours: float
    fine_hours: float

    @property
    def hours(self) -> Array:
        """Length of each slot in hours, shape ``(n,)``."""
        return np.diff(self.edges)


def make_slots(forecast: Forecast, now: float, horizon_hours: float) -> Slots | None:
    """Return the slots from ``now`` to ``now + horizon_hours``, or None without any intensity.

    Hours that the forecast does not cover are filled with the mean of the same hour over the last seven days of the
    history. Without a history, the last 24 hours of the forecast are repeated.

    Slots depend only on the intensity as a function of time: equal neighbors are joined and cut again, so a forecast
    with a slot split in two gives the same plan. The slots of a shorter horizon are the first ones of a longer horizon,
    the last of them cut short, unless ``fine_hours`` lies between the two horizons.

    Args:
        forecast: Forecast and history.
        now: Current time in POSIX seconds.
        horizon_hours: Hours ahead.

    """
    end = now + horizon_hours * HOUR
    # The last slot has the mean of its whole length, so that it does not depend on where the horizon cuts it.
    length = float(_far_lengths(np.array([horizon_hours]))[0])
    stop = math.ceil(end / length - 1e-9) * length
    starts, values, spread = _steps(forecast)
    if not len(values) or starts[-1] <= now:
        starts, values, spread = np.empty(1), np.empty(0), None
        starts[0] = now
    covered = max(0.0, min(starts[-1], end) - max(starts[0], now)) / HOUR
    parts: list[tuple[Array, Array, Array | None]] = []
    if starts[0] > now:
        head = _fill(forecast, now, min(starts[0], stop), before=True)
        if head is None:
            return None
        parts.append(head)
    if len(values):
        parts.append((starts, values, spread))
    if starts[-1] < stop:
        tail = _fill(forecast, starts[-1], stop, before=False)
        if tail is None:
            return None
        parts.append(tail)
    begins = np.concatenate([part[0][:-1] for part in parts] + [parts[-1][0][-1:]])
    level = np.concatenate([part[1] for part in parts])
    has_spread = parts[0][2] is not None and spread is not None
    error = np.concatenate([_or_widest(part[2], part[1], spread) for part in parts]) if has_spread else None
    edges, level, error = _cut(begins, level, error, now, stop)
    edges, level, error, fine = _join_far(edges, level, error, now, end)
    within = edges[:-1] < end - 1e-6
    edges = np.append(edges[:-1][within], end)
    spreads = error[within] if has_spread else None
    fine_hours = min(horizon_hours, (fine - now) / HOUR)
    return Slots((edges - now) / HOUR, level[within], spreads, horizon_hours - covered, fine_hours)


def split_slots(slots: Slots, at: Array) -> Slots:
    """Return the slots, split at further times.

    Args:
        slots: The slots.
        at: Hours from now, ascending. Those within a minute of an edge are ignored, and those less than five minutes
            after another one.

    """
    edges = slots.edges
    after = np.clip(np.searchsorted(edges, at), 1, len(edges) - 1)
    distance = np.minimum(at - edges[after - 1], edges[after] - at)
    split = np.union1d(edges, _apart(at[distance > MIN_SPLIT_HOURS]))
    index = np.searchsorted(edges, split[:-1], side="right") - 1
    spread = None if slots.spread is None else slots.spread[index]
    return replace(slots, edges=split, values=slots.values[index], spread=spread)


def _apart(times: Array) -> Array:
    """Return the times without those that are closer than the shortest slot to the one before them."""
    if not len(times) or np.diff(times).min(initial=np.inf) >= MIN_SLOT_HOURS - 1e-9:
        return times
    kept = [float(times[0])]
    for time in times[1:]:
        if time - kept[-1] >= MIN_SLOT_HOURS - 1e-9:
            kept.append(float(time))
    return np.array(kept)


def _steps(forecast: Forecast) -> tuple[Array, Array, Array | None]:
    """Return the forecast as a step function: ``n + 1`` edges, ``n`` values, ``n`` spreads."""
    starts = forecast.seconds
    if not len(starts):
        return starts, np.empty(0), None
    last = starts[-1] - starts[-2] if len(starts) > 1 else HOUR
    return np.append(starts, starts[-1] + last), forecast.values, forecast.spread


def _or_widest(error: Array | None, values: Array, known: Array | None) -> Array:
    """Return ``error``, or the largest of the ``known`` errors for every value if it is None."""
    if error is not None:
        return error
    return np.full(len(values), float(known.max()) if known is not None and len(known) else 0.0)


def _fill(forecast: Forecast, start: float, end: float, *, before: bool) -> tuple[Array, Array, None] | None:
    """Return hourly values for an interval that the forecast does not cover, as a step function."""
    day = _mean_recent_day(forecast)
    if day is None:
        steps, values, _ = _steps(forecast)
        if not len(values):
            return None
        last = slice(0, len(values)) if before else slice(int(np.searchsorted(steps, steps[-1] - DAY)), len(values))
        day = mean_day(steps[:-1][last], values[last], np.diff(steps)[last])
    first = np.floor(start / HOUR) * HOUR
    edges = np.arange(first, end, HOUR)
    filled = day[(edges // HOUR).astype(int) % 24]
    # Keep whole hours at both ends. They are cut later; cutting here would give slots of odd lengths.
    edges = np.append(edges, end if before else edges[-1] + HOUR)
    edges[0] = first if before else start
    return edges, filled, None


def _mean_recent_day(forecast: Forecast) -> Array | None:
    """Return the mean intensity of each UTC hour over the last seven days of the history, shape ``(24,)``."""
    times, values = forecast.history_seconds, forecast.history_values
    if values is None or not len(times):
        return None
    recent = times > times[-1] - RECENT_DAYS * DAY
    return mean_day(times[recent], values[recent], np.ones(int(recent.sum())))


def mean_day(times: Array, values: Array, weights: Array) -> Array:
    """Return the weighted mean of each UTC hour, shape ``(24,)``; the overall mean for an hour without values.

    Args:
        times: POSIX seconds, shape ``(n,)``.
        values: Carbon intensity in gCO2e/kWh, shape ``(n,)``.
        weights: Weight of each value, shape ``(n,)``.

    """
    hour = (times // HOUR).astype(int) % 24
    weight = np.bincount(hour, weights, 24)
    total = np.bincount(hour, weights * values, 24)
    mean = float(total.sum() / weight.sum())
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), mean)


def _cut(begins: Array, values: Array, spread: Array | None, now: float, end: float) -> tuple[Array, Array, Array]:
    """Return edges, values and spreads of the slots of a step function between ``now`` and ``end``.

    The slots have the resolution of the function. The spreads are 0 if they are unknown.
    """
    error = np.zeros(len(values)) if spread is None else spread
    change = (np.diff(values) != 0) | (np.diff(error) != 0)
    keep = np.flatnonzero(np.concatenate(([True], change)))
    steps = np.append(begins[keep], begins[-1])
    # Cut long steps to the length of the shortest, so that equal neighbors are decided one by one like unequal ones.
    inner = np.diff(steps)[1:-1] if len(keep) > 2 else np.diff(steps)
    step = float(np.clip(inner.min(), MIN_SECONDS, MAX_SECONDS))
    pieces = np.maximum(1, np.ceil(np.diff(steps) / step - 1e-6)).astype(int)
    if pieces.max() > 1:
        index = np.repeat(np.arange(len(keep)), pieces)
        within = np.arange(len(index)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        edges = steps[index] + within * (np.diff(steps) / pieces)[index]
        edges = np.append(edges, steps[-1])
    else:
        index, edges = np.arange(len(keep)), steps
    source = keep[index]
    inside = (edges[1:] > now + 1e-6) & (edges[:-1] < end - 1e-6)
    level, error = values[source][inside], error[source][inside]
    first = int(np.argmax(inside))
    return np.clip(edges[first : first + len(level) + 1], now, end), level, error


def _join_far(edges: Array, values: Array, error: Array, now: float, end: float) -> tuple[Array, Array, Array, float]:
    """Join slots that are short for their distance, and return the end of the slots that may be shorter than an hour.

    Slots shorter than 5 minutes are joined everywhere. If the first 14 days then have more than ``MAX_SLOTS``, they are
    joined to hours after the first day. Later slots are joined to `FAR_LENGTHS`. A new plan is made long before far
    slots begin, so their resolution does not matter.
    """
    if np.diff(edges).min() < MIN_SECONDS * 0.99:
        edges, values, error = _join(edges, values, error, np.full(len(values), MIN_SECONDS))
    hours = (edges[:-1] - now) / HOUR
    far = hours >= FAR_HOURS - 1e-9
    length = np.where(far, _far_lengths(hours), 0.0)
    near, fine = int((~far & (edges[:-1] < end - 1e-6)).sum()), math.inf
    if near > MAX_SLOTS:
        length[(hours >= FINE_HOURS) & ~far] = HOUR
        fine = float(edges[MAX_SLOTS])
    if length.any():
        edges, values, error = _join(edges, values, error, length)
    return edges, values, error, fine


def _far_lengths(hours: Array) -> Array:
    """Return the length in seconds of joined slots that begin some hours ahead."""
    index = np.searchsorted(FAR_LENGTHS, hours / FAR_HOURS * HOUR + 1e-6, side="right")
    lengths: Array = FAR_LENGTHS[np.maximum(1, index) - 1]
    return lengths


def _join(edges: Array, values: Array, error: Array, length: Array) -> tuple[Array, Array, Array]:
    """Join the slots that begin in the same multiple of ``length`` seconds; those with length 0 are kept."""
    block = np.where(length > 0, np.floor(edges[:-1] / np.where(length > 0, length, 1.0)), edges[:-1])
    new = np.flatnonzero(np.concatenate(([True], (np.diff(block) != 0) | (np.diff(length) != 0))))
    hours = np.diff(edges)
    total = np.add.reduceat(hours, new)
    # Errors of neighbors are correlated, so the mean keeps their standard deviation.
    joined, spread = (np.add.reduceat(hours * part, new) / total for part in (values, error))
    return np.append(edges[new], edges[-1]), joined, spread
