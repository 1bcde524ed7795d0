"""The intensities that a run has recorded, by the place and the signal that they are true for."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

_MAX_INTERVALS = 50_000
"""Number of intervals that are kept one by one: two years with an hourly signal. Then neighbors are joined."""


class Place(NamedTuple):
    """What an intensity is true for. Values of different places are never used for each other.

    Args:
        kind: Kind of the signal, for example ``"average/lifecycle"``.
        zone: Grid zone, or None.
        source: Name of the source.
        signal: Digest of the signal's spec, which distinguishes two constants; empty if it has none.

    """

    kind: str
    zone: str | None = None
    source: str = ""
    signal: str = ""


class Known(NamedTuple):
    """The part of an interval whose intensity is known.

    Args:
        mean: Mean intensity of that part in gCO2e/kWh; 0 if it is empty.
        share: Fraction of the interval's time.

    """

    mean: float
    share: float


class RecordedIntensity:
    """The mean intensities of one place, in the intervals in which the run was measured.

    Examples:
        >>> recorded = RecordedIntensity()
        >>> recorded.add(0.0, 60.0, 300.0)
        >>> recorded.add(60.0, 120.0, 500.0)
        >>> recorded.mean(30.0, 90.0)
        Known(mean=400.0, share=1.0)
        >>> recorded.mean(90.0, 150.0)
        Known(mean=500.0, share=0.5)

    """

    def __init__(self) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._values: list[float] = []
        self._join_from = _MAX_INTERVALS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordedIntensity) and self._intervals == other._intervals

    __hash__ = None  # type: ignore[assignment]

    @property
    def _intervals(self) -> tuple[list[float], list[float], list[float]]:
        return self._starts, self._ends, self._values

    def add(self, start: float, end: float, value: float) -> None:
        """Add the next interval: its mean intensity from ``start`` to ``end`` (seconds since the epoch)."""
        start = max(start, self._ends[-1]) if self._ends else start  # the first writer is right about a time
        if end <= start:
            return
        if self._ends and self._ends[-1] == start and self._values[-1] == value:
            self._ends[-1] = end
            return
        self._starts.append(start)
        self._ends.append(end)
        self._values.append(value)
        if len(self._starts) > self._join_from:
            self._join_neighbors()

    def intervals(self) -> Iterator[tuple[float, float, float]]:
        """Yield the intervals as (start, end, mean intensity)."""
        return zip(*self._intervals, strict=True)

    def mean(self, start: float, end: float) -> Known:
        """Return the mean of the recorded part of an interval, and how much of it is recorded."""
        if end <= start:
            position = bisect_right(self._starts, start) - 1
            inside = position >= 0 and start <= self._ends[position]
            return Known(self._values[position], 1.0) if inside else Known(0.0, 0.0)
        weighted = seconds = 0.0
        for position in range(max(0, bisect_right(self._starts, start) - 1), len(self._starts)):
            if self._starts[position] >= end:
                break
            overlap = min(end, self._ends[position]) - max(start, self._starts[position])
            if overlap > 0.0:
                weighted += overlap * self._values[position]
                seconds += overlap
        return Known(weighted / seconds, min(1.0, seconds / (end - start))) if seconds else Known(0.0, 0.0)

    def gaps(self, start: float, end: float) -> list[tuple[float, float]]:
        """Return the parts of an interval that are not recorded."""
        found, at = list[tuple[float, float]](), start
        for position in range(max(0, bisect_right(self._starts, start) - 1), len(self._starts)):
            if self._starts[position] >= end:
                break
            if self._ends[position] > at:
                if self._starts[position] > at:
                    found.append((at, self._starts[position]))
                at = self._ends[position]
        return [*found, (at, end)] if at < end else found

    def join(self, other: RecordedIntensity) -> None:
        """Add the intervals of a later record of the same place."""
        for start, end, value in zip(other._starts, other._ends, other._values, strict=True):
            self.add(start, end, value)

    def variation(self) -> float:
        """Return the standard deviation of the intensity over time as a fraction of its mean; 0 without a record."""
        lengths = [end - start for start, end in zip(self._starts, self._ends, strict=True)]
        total = sum(lengths)
        mean = (
            sum(length * value for length, value in zip(lengths, self._values, strict=True)) / total if total else 0.0
        )
        if mean <= 0.0:
            return 0.0
        squares = sum(length * (value - mean) ** 2 for length, value in zip(lengths, self._values, strict=True))
        return math.sqrt(squares / total) / mean

    def _join_neighbors(self) -> None:
        """Join pairs of neighbors that touch, which halves the resolution in time and keeps the integral."""
        starts, ends, values = list[float](), list[float](), list[float]()
        open_pair = False
        for start, end, value in zip(self._starts, self._ends, self._values, strict=True):
            if open_pair and ends[-1] == start:
                before = ends[-1] - starts[-1]
                values[-1] = (values[-1] * before + value * (end - start)) / (before + end - start)
                ends[-1], open_pair = end, False
            else:
                starts.append(start)
                ends.append(end)
                values.append(value)
                open_pair = True
        self._starts, self._ends, self._values = starts, ends, values
        self._join_from = max(_MAX_INTERVALS, 2 * len(starts))
