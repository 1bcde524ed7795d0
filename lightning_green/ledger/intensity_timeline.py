"""What the energy of a node costs that does not read the grid itself."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import NamedTuple


class Price(NamedTuple):
    """An intensity in gCO2e/kWh (None where it is not known) that holds from ``start`` to ``end``."""

    start: float
    end: float
    value: float | None
    kind: str


class Prices:
    """The mean intensities that rank 0 put on record, one interval after another, within one start of a run.

    The ledgers of the other nodes hold energy alone. An interval of theirs is priced by the intensities that overlap
    it, in proportion to the time.

    Example::

        >>> prices = Prices()
        >>> prices.add(Price(0.0, 60.0, 300.0, "average/direct"))
        >>> prices.add(Price(60.0, 120.0, 500.0, "average/direct"))
        >>> prices.shares(30.0, 90.0)
        [(0.5, 300.0, 'average/direct'), (0.5, 500.0, 'average/direct')]

    """

    def __init__(self) -> None:
        self._prices: list[Price] = []
        self._starts: list[float] = []

    @property
    def end(self) -> float:
        """Until when the intensities are on record; minus infinity before there is any."""
        return self._prices[-1].end if self._prices else float("-inf")

    def add(self, price: Price) -> None:
        """Take in the next interval; one that costs as much as the one before makes it longer."""
        if price.end <= price.start:
            return
        if self._prices and self._prices[-1][2:] == price[2:]:
            self._prices[-1] = self._prices[-1]._replace(end=max(price.end, self.end))
        else:
            self._prices.append(price)
            self._starts.append(price.start)

    def shares(self, start: float, end: float) -> list[tuple[float, float | None, str]]:
        """Return the parts of an interval: (fraction of its time, intensity, kind); together they are 1.

        What lies before the first intensity or after the last one costs as much as that one: the nodes do not begin and
        end at the same moment.
        """
        if not self._prices:
            return [(1.0, None, "")]
        first = max(0, bisect_right(self._starts, start) - 1)
        last = max(0, bisect_right(self._starts, end) - 1)
        if first == last or end <= start:
            return [(1.0, *self._prices[last][2:])]
        edges = [start, *self._starts[first + 1 : last + 1], end]
        lengths = [after - before for before, after in pairwise(edges)]
        parts = zip(lengths, self._prices[first : last + 1], strict=True)
        return [(length / (end - start), price.value, price.kind) for length, price in parts if length > 0.0]
