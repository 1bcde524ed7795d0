"""Joules from what sensors give: a counter that wraps and resets, or a power."""

from __future__ import annotations

from typing import NamedTuple


class Added(NamedTuple):
    """Energy since the reading before.

    Args:
        joules: Energy in joules, 0 or more.
        guessed: Whether a part of it had to be filled in.

    """

    joules: float
    guessed: bool = False


class EnergyCounter:
    """Energy from a cumulative counter, over its wrap-around, its resets and times in which it did not answer.

    A counter that comes back after an outage has counted on, so nothing is lost. One that falls has wrapped around, if
    it has a range and the energy that this means is one that the device can have drawn; else it was reset (a driver was
    reloaded, a machine slept), and the gap is filled with the power before it. Where a gap was so long that the counter
    may have gone round several times, the power before decides how often. What was filled in is ``guessed``.

    Args:
        most_watts: More than the device can draw, in W.
        range_joules: Where the counter wraps around, in J; None where it does not.

    Example::

        >>> counter = EnergyCounter(most_watts=500.0, range_joules=1000.0)
        >>> [counter.add(at, joules).joules for at, joules in [(0, 900.0), (1, 980.0), (2, 60.0)]]
        [0.0, 80.0, 80.0]

    """

    def __init__(self, most_watts: float, range_joules: float | None = None) -> None:
        self._most_watts, self._range = most_watts, range_joules
        self._last: tuple[float, float] | None = None
        self._watts = 0.0

    def add(self, at: float, joules: float) -> Added:
        """Take a reading and return the energy since the one before; 0 for the first.

        Args:
            at: Time of the reading in monotonic seconds.
            joules: What the counter shows, in J.

        """
        if self._last is None:
            self._last = (at, joules)
            return Added(0.0)
        elapsed = max(0.0, at - self._last[0])
        added = self._between(elapsed, self._last[1], joules)
        self._last = (at, joules)
        if elapsed > 0.0 and not added.guessed:
            self._watts = added.joules / elapsed
        return added

    def _between(self, elapsed: float, before: float, now: float) -> Added:
        most, expected = self._most_watts * elapsed, self._watts * elapsed
        difference = now - before
        if self._range is None:
            return Added(difference) if difference >= 0.0 else Added(expected, guessed=True)
        if difference < 0.0:
            difference += self._range
            if not 0.0 <= difference <= most:
                return Added(expected, guessed=True)
        if difference + self._range <= most:  # it may have gone round more than once
            rounds = max(0, round((expected - difference) / self._range))
            return Added(difference + rounds * self._range, guessed=True)
        return Added(difference)


class PowerIntegral:
    """Energy from a power that is sampled, by the trapezium rule.

    Args:
        longest_gap: Seconds between two samples above which what lies between them is ``guessed``.

    Example::

        >>> integral = PowerIntegral(longest_gap=30.0)
        >>> [integral.add(at, watts).joules for at, watts in [(0, 100.0), (10, 200.0)]]
        [0.0, 1500.0]

    """

    def __init__(self, longest_gap: float) -> None:
        self._longest_gap = longest_gap
        self._last: tuple[float, float] | None = None

    def add(self, at: float, watts: float) -> Added:
        """Take a sample and return the energy since the one before; 0 for the first.

        Args:
            at: Time of the sample in monotonic seconds.
            watts: Power in W.

        """
        before, self._last = self._last, (at, watts)
        if before is None:
            return Added(0.0)
        elapsed = max(0.0, at - before[0])
        return Added((watts + before[1]) / 2 * elapsed, guessed=elapsed > self._longest_gap)
