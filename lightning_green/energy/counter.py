"""Energy from the readings of a sensor: a counter that wraps around and resets, or a power."""

from __future__ import annotations

import math
from typing import NamedTuple


class Added(NamedTuple):
    """Energy since the previous reading.

    Attributes:
        joules: Energy in J, 0 or more.
        estimated: Whether a part of the energy is estimated.

    """

    joules: float
    estimated: bool = False


class ImplausibleReadingError(ValueError):
    """A reading that no working sensor returns. Its energy is unknown until the next plausible reading."""


class EnergyCounter:
    """Compute energy from a cumulative counter that may wrap around, be reset, or be unreadable for a while.

    A counter keeps counting while it cannot be read, so an outage loses no energy. A lower reading is a wrap-around if
    the counter has a range and the resulting energy is at most ``max_watts`` times the elapsed time. Otherwise the
    counter was reset, for example by a driver reload, and the energy of the gap is estimated from the previous power.
    If the counter may have wrapped around several times, the previous power determines the number of times.

    A single jump is ignored. If the counter continues from there, it was set to another value, and the energy of the
    gap is estimated from the previous power.

    Args:
        max_watts: Upper bound of the device's power, in W.
        range_joules: Value at which the counter wraps around, in J; None if it does not.
        still_seconds: Time without a change after which the counter is known to stand still, in s; None for a device
            that may draw no power, and for a counter with a coarse resolution.

    Examples:
        >>> counter = EnergyCounter(max_watts=500.0, range_joules=1000.0)
        >>> [counter.add(at, joules).joules for at, joules in [(0, 900.0), (1, 980.0), (2, 60.0)]]
        [0.0, 80.0, 80.0]

    """

    def __init__(self, max_watts: float, range_joules: float | None = None, still_seconds: float | None = None) -> None:
        self._max_watts, self._range = max_watts, range_joules
        self._still_seconds = math.inf if still_seconds is None else still_seconds
        self._last: tuple[float, float] | None = None
        self._jumped: tuple[float, float] | None = None  # the last reading, if it was a jump
        self._changed_at = 0.0
        self._watts = 0.0

    def add(self, at: float, joules: float) -> Added:
        """Add a reading and return the energy since the previous one; 0 for the first reading.

        Args:
            at: Time of the reading in monotonic seconds.
            joules: Value of the counter in J.

        Raises:
            ImplausibleReadingError: If the counter stands still or has jumped.

        """
        if self._last is None:
            self._last, self._changed_at = (at, joules), at
            return Added(0.0)
        if joules == self._last[1]:
            if at - self._changed_at >= self._still_seconds:
                raise ImplausibleReadingError(f"the counter has not changed for {at - self._changed_at:.0f} s")
        else:
            self._changed_at = at
        elapsed = max(0.0, at - self._last[0])
        added = self._between(elapsed, self._last[1], joules)
        if not self._is_plausible(added.joules, elapsed):
            jumped, self._jumped = self._jumped, (at, joules)
            since = 0.0 if jumped is None else joules - jumped[1]
            if jumped is None or since < 0.0 or not self._is_plausible(since, at - jumped[0]):
                raise ImplausibleReadingError(f"the counter has jumped by {added.joules:.3g} J in {elapsed:.3g} s")
            added = Added(since + self._watts * max(0.0, jumped[0] - self._last[0]), estimated=True)
        self._last, self._jumped = (at, joules), None
        if elapsed > 0.0 and not added.estimated:
            self._watts = added.joules / elapsed
        return added

    def _is_plausible(self, joules: float, elapsed: float) -> bool:
        # A second more, because the counter may be older than the reading.
        return joules <= self._max_watts * (elapsed + 1.0)

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
        max_watts: Upper bound of the device's power, in W.
        min_watts: Power that the device always exceeds, in W; None for a device that may draw no power.

    Examples:
        >>> integral = PowerIntegral(longest_gap=30.0)
        >>> [integral.add(at, watts).joules for at, watts in [(0, 100.0), (10, 200.0)]]
        [0.0, 1500.0]

    """

    def __init__(self, longest_gap: float, max_watts: float = math.inf, min_watts: float | None = None) -> None:
        self._longest_gap, self._max_watts = longest_gap, max_watts
        self._min_watts = -1.0 if min_watts is None else min_watts
        self._last: tuple[float, float] | None = None

    def add(self, at: float, watts: float) -> Added:
        """Add a sample and return the energy since the previous one; 0 for the first sample.

        Args:
            at: Time of the sample in monotonic seconds.
            watts: Power in W.

        Raises:
            ImplausibleReadingError: If the power is out of the range of the device.

        """
        if not self._min_watts < watts <= self._max_watts:
            raise ImplausibleReadingError(f"a power of {watts:.6g} W")
        before, self._last = self._last, (at, watts)
        if before is None:
            return Added(0.0)
        elapsed = max(0.0, at - before[0])
        return Added((watts + before[1]) / 2 * elapsed, estimated=elapsed > self._longest_gap)
