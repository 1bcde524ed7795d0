"""The carbon intensities that rank 0 has recorded, to account the energy of the other nodes."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import NamedTuple

from lightning_green.ledger.recorded_intensity import Place

_MAX_INTERVALS = 20_000
"""Number of intervals that are kept: more than three days, one every 15 s."""


class Origin(NamedTuple):
    """What an intensity is true for, and how good it is (see ``Reading``)."""

    place: Place
    quality: str


class IntensityInterval(NamedTuple):
    """An intensity in gCO2e/kWh from ``start`` to ``end`` (seconds since the epoch); None if it is unknown."""

    start: float
    end: float
    value: float | None
    origin: Origin | None


class IntensityTimeline:
    """The mean intensities that rank 0 has recorded, one interval after another, within one start of a run.

    The ledgers of the other nodes hold only energy. The energy of an interval is split among the intensities that
    overlap it, in proportion to time.

    Examples:
        >>> timeline = IntensityTimeline()
        >>> timeline.add(IntensityInterval(0.0, 60.0, 300.0, None))
        >>> timeline.add(IntensityInterval(60.0, 120.0, 500.0, None))
        >>> timeline.shares(30.0, 90.0)
        [(0.5, 300.0, None), (0.5, 500.0, None)]

    """

    def __init__(self) -> None:
        self._intervals: list[IntensityInterval] = []
        self._starts: list[float] = []

    @property
    def end(self) -> float:
        """End of the last interval; minus infinity if there is none."""
        return self._intervals[-1].end if self._intervals else float("-inf")

    def add(self, interval: IntensityInterval) -> None:
        """Add the next interval; one with the same intensity extends the previous one."""
        start, end, value, origin = interval
        if end <= start:
            return
        last = self._intervals[-1] if self._intervals else None
        if last is not None and last.value == value and last.origin == origin:
            self._intervals[-1] = IntensityInterval(last.start, max(end, last.end), value, origin)
        else:
            self._intervals.append(interval)
            self._starts.append(start)
            if len(self._intervals) > _MAX_INTERVALS:  # other nodes are not that late
                del self._intervals[: _MAX_INTERVALS // 2], self._starts[: _MAX_INTERVALS // 2]

    def shares(self, start: float, end: float) -> list[tuple[float, float | None, Origin | None]]:
        """Return the parts of an interval: (fraction of its time, intensity, origin); together they are 1.

        The time before the first interval and after the last one has their intensity: the nodes do not start and end at
        the same moment.
        """
        if not self._intervals:
            return [(1.0, None, None)]
        first = max(0, bisect_right(self._starts, start) - 1)
        last = max(0, bisect_right(self._starts, end) - 1)
        if first == last or end <= start:
            return [(1.0, *self._intervals[last][2:])]
        edges = [start, *self._starts[first + 1 : last + 1], end]
        lengths = [after - before for before, after in pairwise(edges)]
        parts = zip(lengths, self._intervals[first : last + 1], strict=True)
        return [(length / (end - start), interval.value, interval.origin) for length, interval in parts if length > 0.0]
