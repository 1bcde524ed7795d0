"""The curves of a report, reduced to a few points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightning_green.ledger.recorded_intensity import RecordedIntensity
from lightning_green.report.energy_intervals import EnergyIntervals

Row = TypeVar("Row")

MAX_POINTS = 600
"""Points of a curve: more than a screen has columns for it."""


class Step(NamedTuple):
    """A constant value from ``start`` to ``end``, in seconds since the epoch."""

    start: float
    end: float
    value: float


def intensity_steps(recorded: Iterable[RecordedIntensity], start: float, end: float) -> list[Step]:
    """Return the recorded carbon intensities of a run as at most about ``MAX_POINTS`` steps.

    Args:
        recorded: Intensities of the places that the run was at, one after another.
        start: Start of the run in seconds since the epoch.
        end: Its end.

    """
    found = sorted(Step(*one) for place in recorded for one in place.intervals())
    if len(found) <= MAX_POINTS:
        return found
    edges, steps = np.linspace(start, end, MAX_POINTS + 1), np.array(found)
    seconds, weighted = spread(edges, steps[:, 0], steps[:, 1], steps[:, 1] - steps[:, 0], steps[:, 2])
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), seconds.tolist(), weighted.tolist(), strict=True)
    return [Step(first, last, product / length) for first, last, length, product in rows if length > 0.0]


def mean_power(energy: EnergyIntervals, start: float, end: float) -> tuple[list[float], dict[str, list[float]]]:
    """Return the power of a run over time.

    Args:
        energy: Energy of the run.
        start: Start of the run in seconds since the epoch.
        end: Its end.

    Returns:
        The middle of each interval in seconds since the epoch, and the mean power of each component in W.

    """
    longest = max((len(one.joules) for one in energy.by_component.values()), default=0)
    edges = np.linspace(start, max(end, start + 1e-3), max(1, min(MAX_POINTS // 2, longest)) + 1)
    found = {}
    for name, one in energy.by_component.items():
        starts, ends, joules = np.array(one.starts), np.array(one.ends), np.array(one.joules)
        lasts = ends > starts
        if lasts.any():
            total, _ = spread(edges, starts[lasts], ends[lasts], joules[lasts], np.ones(int(lasts.sum())))
            found[name] = (total / (edges[1] - edges[0])).tolist()
    return ((edges[:-1] + edges[1:]) / 2).tolist(), found


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


def thinned(rows: Sequence[Row], most: int = MAX_POINTS) -> list[Row]:
    """Return at most ``most`` rows, evenly apart, with the first and the last one."""
    if len(rows) <= most:
        return list(rows)
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, most).round()]
