"""Measurement of one throttle level during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

WARM_UP_STEPS = 3
MIN_BLOCKS, MAX_BLOCKS = 5, 30
MAX_BLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class OperatingPoint:
    """Measured time and power of one level.

    Args:
        name: Name of the level.
        seconds: Mean step time in s.
        seconds_error: Half-width of its confidence interval.
        watts: Mean power in W; None if not all power was measured.
        watts_error: Half-width of its confidence interval.

    """

    name: str
    seconds: float
    seconds_error: float
    watts: float | None
    watts_error: float | None


@dataclass(frozen=True)
class Precision:
    """When a mean is known precisely enough.

    Args:
        confidence: Confidence level of the interval.
        tolerance: Largest half-width of the interval, as a fraction of the mean.

    """

    confidence: float = 0.95
    tolerance: float = 0.03

    def is_reached(self, values: Sequence[float]) -> bool:
        """Return whether the mean of ``values`` is known precisely enough."""
        return half_width(values, self.confidence) <= self.tolerance * fmean(values)


@dataclass
class _Block:
    """Consecutive steps between two readings of the energy."""

    start_joules: float | None
    steps: int = 0
    seconds: float = 0.0


class LevelMeasurement:
    """Measure step time and power at one level, in blocks of training steps.

    The first steps are excluded, because the device settles. Blocks follow until both means are known precisely
    enough, there are ``MAX_BLOCKS`` of them, or the next step would exceed the time budget.

    Args:
        name: Name of the level.
        budget: Time budget in s.
        precision: Precision of both means.

    """

    def __init__(self, name: str, budget: float, precision: Precision) -> None:
        self.name = name
        self._budget, self._precision = budget, precision
        # The minimum number of blocks takes half of the budget.
        self._block_seconds = min(MAX_BLOCK_SECONDS, budget / 2 / MIN_BLOCKS)
        self._spent = self._last_step = 0.0
        self._warm_up = 0
        self._block = _Block(None)
        self._discard = False
        self._seconds: list[float] = []
        self._watts: list[float] = []

    def on_step(self, seconds: float, joules: Callable[[], float | None]) -> bool:
        """Add a step and return whether the measurement is complete.

        Args:
            seconds: Duration of the step in s.
            joules: Reads the cumulative energy in J; None if not all energy is measured. Called once per block.

        """
        self._last_step = seconds
        self._spent += seconds
        if self._discard:
            self._start_block(joules())
            return self._is_over_budget()
        if self._warm_up < WARM_UP_STEPS:
            self._warm_up += 1
            if self._warm_up == WARM_UP_STEPS:
                self._block.start_joules = joules()
            return self._is_over_budget()
        self._block.steps += 1
        self._block.seconds += seconds
        if self._block.seconds >= self._block_seconds or self._is_over_budget():
            self._end_block(joules())
        return self._is_precise() or self._is_over_budget() or len(self._seconds) >= MAX_BLOCKS

    def discard_block(self) -> None:
        """Discard the current block, because something other than a training step used time or energy."""
        self._discard = True

    def result(self) -> OperatingPoint | None:
        """Return the operating point, or None if it is not known precisely enough."""
        if not self._is_precise():
            return None
        confidence = self._precision.confidence
        has_power = len(self._watts) == len(self._seconds)
        return OperatingPoint(
            self.name,
            fmean(self._seconds),
            half_width(self._seconds, confidence),
            fmean(self._watts) if has_power else None,
            half_width(self._watts, confidence) if has_power else None,
        )

    def _start_block(self, joules: float | None) -> None:
        self._block, self._discard = _Block(joules), False

    def _end_block(self, joules: float | None) -> None:
        block = self._block
        self._seconds.append(block.seconds / block.steps)
        if joules is not None and block.start_joules is not None:
            self._watts.append((joules - block.start_joules) / block.seconds)
        self._start_block(joules)

    def _is_over_budget(self) -> bool:
        """Return whether one more step like the last one would exceed the budget."""
        return self._spent + self._last_step > self._budget

    def _is_precise(self) -> bool:
        if len(self._seconds) < MIN_BLOCKS:
            return False
        complete = [self._seconds] + ([self._watts] if len(self._watts) == len(self._seconds) else [])
        return all(self._precision.is_reached(values) for values in complete)


def half_width(values: Sequence[float], confidence: float) -> float:
    """Return the half-width of the confidence interval of a mean, by Student's t distribution.

    The quantile is the expansion of Abramowitz and Stegun (1964), 26.7.5, with an error of at most 0.1 % from four
    degrees of freedom.

    Args:
        values: Samples.
        confidence: Confidence level in (0, 1).

    Examples:
        >>> round(half_width([9.0, 10.0, 11.0, 10.0, 10.0], 0.95), 3)
        0.878

    """
    if len(values) < 2:
        return math.inf
    degrees = len(values) - 1
    x = NormalDist().inv_cdf(0.5 + confidence / 2)
    t = x + (x**3 + x) / (4 * degrees) + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * degrees**2)
    t += (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / (384 * degrees**3)
    t += (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / (92160 * degrees**4)
    return t * stdev(values) / math.sqrt(len(values))
