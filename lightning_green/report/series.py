"""Collects the curves of a report while the events of a ledger are read once, and reduces them to a few points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_green.ledger.events import Event, Started
from lightning_green.ledger.intensity_series import read_series

MAX_POINTS = 600
"""Points of a curve: more than a screen has columns for it."""


class Step(NamedTuple):
    """A constant value from ``start`` to ``end``, in seconds since the epoch."""

    start: float
    end: float
    value: float


class IntensityCurve:
    """The carbon intensity that the node of rank 0 has recorded, also for the time before a restart."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._last: tuple[int, float] | None = None

    def add(self, event: Event, at: float) -> None:
        """Add the next event; ``at`` is its time in seconds since the epoch."""
        if event.measured is None or event.node_rank:
            return
        intensity = event.measured.intensity
        if isinstance(event, Started) and self._last is not None:
            self._add_away(event, at - event.startup_s)
        if intensity is not None:
            startup = event.startup_s if isinstance(event, Started) else 0.0
            same = self._last is not None and self._last[0] == event.attempt
            start = self._last[1] if same and self._last is not None else at - startup
            self._append(Step(start, max(start, at), intensity.value))
        self._last = event.attempt, at

    def steps(self, start: float, end: float) -> list[Step]:
        """Return at most about ``MAX_POINTS`` steps of the time from ``start`` to ``end``."""
        if len(self._steps) <= MAX_POINTS:
            return list(self._steps)
        edges = np.linspace(start, end, MAX_POINTS + 1)
        steps = np.array(self._steps)
        seconds, weighted = spread(edges, steps[:, 0], steps[:, 1], steps[:, 1] - steps[:, 0], steps[:, 2])
        known = seconds > 0.0
        means = np.divide(weighted, seconds, out=np.zeros_like(weighted), where=known)
        found = [Step(a, b, m) for a, b, m, k in zip(edges[:-1], edges[1:], means, known, strict=True) if k]
        return [Step(*map(float, one)) for one in found]

    def _add_away(self, event: Started, began: float) -> None:
        series = read_series(event.away)
        ends = [start for start, _ in series[1:]] + [began]
        for (start, value), end in zip(series, ends, strict=True) if series else ():
            if value is not None and end > start:
                self._append(Step(start, end, value))

    def _append(self, step: Step) -> None:
        last = self._steps[-1] if self._steps else None
        if last is not None and last.value == step.value and step.start - last.end < 1.0:
            self._steps[-1] = Step(last.start, max(last.end, step.end), last.value)
        elif step.end > step.start:
            self._steps.append(step)


class PowerCurves:
    """The mean power of each component over time, of all nodes."""

    def __init__(self) -> None:
        self._starts: dict[str, list[float]] = defaultdict(list)
        self._ends: dict[str, list[float]] = defaultdict(list)
        self._joules: dict[str, list[float]] = defaultdict(list)
        self._last: dict[tuple[int, int, int | None], tuple[float, dict[str, float]]] = {}

    def add(self, event: Event, at: float) -> None:
        """Add the next event; ``at`` is its time in seconds since the epoch."""
        if event.measured is None:
            return
        key = event.node_rank, event.attempt, event.fit
        now = {name: energy.joules for name, energy in event.measured.joules.items()}
        startup = event.startup_s if isinstance(event, Started) else 0.0
        start, before = self._last.get(key, (at - startup, {}))
        for name, joules in now.items():
            spent = joules - before.get(name, 0.0)
            if spent > 0.0 and at > start:
                self._starts[name].append(start)
                self._ends[name].append(at)
                self._joules[name].append(spent)
        if at > start or not before:
            self._last[key] = at, now

    def curves(self, start: float, end: float) -> tuple[list[float], dict[str, list[float]]]:
        """Return the middle of each interval in seconds since the epoch, and the mean power of each component in W."""
        longest = max((len(values) for values in self._joules.values()), default=0)
        count = max(1, min(MAX_POINTS // 2, longest))
        edges = np.linspace(start, max(end, start + 1e-3), count + 1)
        width = edges[1] - edges[0]
        found = {}
        for name, joules in self._joules.items():
            starts, ends = np.array(self._starts[name]), np.array(self._ends[name])
            total, _ = spread(edges, starts, ends, np.array(joules), np.ones(len(joules)))
            found[name] = [float(value) for value in total / width]
        return [float(value) for value in (edges[:-1] + edges[1:]) / 2], found


def spread(
    edges: NDArray[np.float64],
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    amounts: NDArray[np.float64],
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distribute amounts of intervals evenly over bins.

    Args:
        edges: Edges of the bins, ascending, shape ``(m + 1,)``.
        starts: Start of each interval, shape ``(n,)``.
        ends: End of each interval, later than its start, shape ``(n,)``.
        amounts: Amount of each interval, shape ``(n,)``.
        values: Value of each interval, shape ``(n,)``.

    Returns:
        Sum of the amounts in each bin, and the sum of amount x value, each of shape ``(m,)``.

    Examples:
        >>> sums, _ = spread(*map(np.array, ([0.0, 1.0, 2.0], [0.5], [1.5], [4.0], [1.0])))
        >>> sums.tolist()
        [2.0, 2.0]

    """
    # The cumulative amount at each edge is piecewise linear in time: a sum over ramps, one of each interval.
    rates = amounts / np.maximum(ends - starts, 1e-9)

    def cumulative(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        slopes = np.concatenate([weights, -weights])
        times = np.concatenate([starts, ends])
        order = np.argsort(times, kind="stable")
        times, slopes = times[order] - edges[0], slopes[order]
        at = edges - edges[0]
        index = np.searchsorted(times, at, side="right")
        sums = np.concatenate([[0.0], np.cumsum(slopes)])[index]
        moments = np.concatenate([[0.0], np.cumsum(slopes * times)])[index]
        found: NDArray[np.float64] = sums * at - moments
        return found

    return np.diff(cumulative(rates)), np.diff(cumulative(rates * values))


def thinned(times: Sequence[float], values: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Yield at most ``MAX_POINTS`` points of a curve that does not fall, evenly in their number, with both ends."""
    count = len(times)
    picked = range(count) if count <= MAX_POINTS else np.linspace(0, count - 1, MAX_POINTS).round().astype(int)
    for index in picked:
        yield times[int(index)], values[int(index)]
