"""Energy from the readings of a sensor: a counter that wraps around and resets, or a power."""

from __future__ import annotations

from typing import NamedTuple


class Added(NamedTuple):
    """Energy since the previous reading.

    Attributes:
        joules: Energy in J, 0 or more.
        estimated: Whether a part of the energy is estimated.

    """

    joules: float
    estimated: bool = False


class EnergyCounter:
    """Compute energy from a cumulative counter that may wrap around, be reset, or be unreadable for a while.

    A counter keeps counting while it cannot be read, so an outage loses no energy. A lower reading is a wrap-around if
    the counter has a range and the resulting energy is at most ``max_watts`` times the elapsed time. Otherwise the
    counter was reset, for example by a driver reload, and the energy of the gap is estimated from the previous power.
    If the counter may have wrapped around several times, the previous power determines the number of times.

    Args:
        max_watts: Upper bound of the device's power, in W.
        range_joules: Value at which the counter wraps around, in J; None if it does not.

    Examples:
        >>> counter = EnergyCounter(max_watts=500.0, range_joules=1000.0)
        >>> [counter.add(at, joules).joules for at, joules in [(0, 900.0), (1, 980.0), (2, 60.0)]]
        [0.0, 80.0, 80.0]

    """

    def __init__(self, max_watts: float, range_joules: float | None = None) -> None:
        self._max_watts, self._range = max_watts, range_joules
        self._last: tuple[float, float] | None = None
        self._watts = 0.0

    def add(self, at: float, joules: float) -> Added:
        """Add a reading and return the energy since the previous one; 0 for the first reading.

        Args:
            at: Time of the reading in monotonic seconds.
            joules: Value of the counter in J.

        """
        if self._last is None:
            self._last = (at, joules)
            return Added(0.0)
        elapsed = max(0.0, at - self._last[0])
        added = self._between(elapsed, self._last[1], joules)
        self._last = (at, joules)
        if elapsed > 0.0 and not added.estimated:
            self._watts = added.joules / elapsed
        return added

    def _between(self, elapsed: float, before: float, now: float) -> Added:
        maximum, expected = self._max_watts * elapsed, self._watts * elapsed
        difference = now - before
        if self._range is None:
            return Added(difference) if difference >= 0.0 else Added(expected, estimated=True)
        if difference < 0.0:
            difference += self._range
            if not 0.0 <= difference <= maximum:
                return Added(expected, estimated=True)
        if difference + self._range <= maximum:  # more than one wrap-around is possible
            wraps = max(0, round((expected - difference) / self._range))
            return Added(difference + wraps * self._range, estimated=True)
        return Added(difference)


class PowerIntegral:
    """Integrate a sampled power over time by the trapezoidal rule.

    Args:
        longest_gap: Time between two samples, in s, above which the energy between them is ``estimated``.

    Examples:
        >>> integral = PowerIntegral(longest_gap=30.0)
        >>> [integral.add(at, watts).joules for at, watts in [(0, 100.0), (10, 200.0)]]
        [0.0, 1500.0]

    """

    def __init__(self, longest_gap: float) -> None:
        self._longest_gap = longest_gap
        self._last: tuple[float, float] | None = None

    def add(self, at: float, watts: float) -> Added:
        """Add a sample and return the energy since the previous one; 0 for the first sample.

        Args:
            at: Time of the sample in monotonic seconds.
            watts: Power in W.

        """
        before, self._last = self._last, (at, watts)
        if before is None:
            return Added(0.0)
        elapsed = max(0.0, at - before[0])
        return Added((watts + before[1]) / 2 * elapsed, estimated=elapsed > self._longest_gap)
