"""What each level of a throttle costs in speed and saves in power, measured while training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

from lightning_green.planning.job import Level

DRIFT = 0.25
WARM_UP_STEPS = 3
FEWEST_BLOCKS, MOST_BLOCKS = 5, 30
LONGEST_BLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class OperatingPoint:
    """What was measured at one level.

    Args:
        name: Name of the level.
        seconds: Mean seconds of a step.
        seconds_error: Half the width of its confidence interval.
        watts: Mean power in W; None where no sensor saw all of it.
        watts_error: Half the width of its confidence interval.

    """

    name: str
    seconds: float
    seconds_error: float
    watts: float | None
    watts_error: float | None


class ThrottleProfile:
    """Measures power and speed of each level during the first steps of a training, within a share of its time.

    At each level a few steps are left out (the device settles), then blocks of steps are measured until the confidence
    intervals of the mean time of a step and of the mean power are as narrow as ``tolerance``. The steps are training
    steps like any other; only their speed differs. All levels together, and every repetition, take no more than
    ``share`` of the run; a level that is not known well enough by then is not offered. Later steps are watched: where
    the time of a step drifts by a quarter, the levels are measured again.

    Args:
        names: Names of the levels; the first is the state that was found.
        run_seconds: How long the run is expected to take.
        confidence: Of the intervals.
        tolerance: Half the width of an interval as a fraction of the mean.
        share: Largest fraction of the run that measuring may take.

    Raises:
        ValueError: If an argument is out of its range.

    Example::

        profile = ThrottleProfile(["300 W", "250 W"], run_seconds=36000)
        level = profile.on_step(0.21, joules)  # the level to go to, or None to stay

    """

    def __init__(
        self,
        names: Sequence[str],
        run_seconds: float,
        confidence: float = 0.95,
        tolerance: float = 0.03,
        share: float = 0.02,
    ) -> None:
        for name, value in (("confidence", confidence), ("tolerance", tolerance), ("share", share)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"`{name}` should lie between 0 and 1, got {value!r}.")
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"`names` should hold two levels or more, each once, got {list(names)!r}.")
        if not run_seconds >= 0.0:
            raise ValueError(f"`run_seconds` should be 0 or more, got {run_seconds!r}.")
        self.names = list(names)
        self.confidence, self.tolerance, self.share = confidence, tolerance, share
        self.budget = share * run_seconds
        self.spent = 0.0
        self.points: dict[str, OperatingPoint] = {}
        self.measuring: str | None = self.names[0]
        self._last_step = 0.0
        self._joules: float | None = None
        self._current = self.names[0]
        self._slower = self._faster = 0
        self._begin_level(self._allowance())

    def on_step(self, seconds: float, joules: Callable[[], float | None]) -> str | None:
        """Take in a step; return the name of the level to go to, or None to stay at this one.

        Args:
            seconds: What the step took.
            joules: Returns the energy so far, freshly read, or None where no sensor sees all of it. It is called once
                a block.

        """
        self._last_step = seconds
        if self.measuring is None:
            return self._watch(seconds)
        self.spent += seconds
        self._level_spent += seconds
        if self._disturbed:
            self._begin_block(joules())
            return self._next_level() if self._over() else None
        self._skipped += 1
        if self._skipped <= WARM_UP_STEPS:
            if self._skipped == WARM_UP_STEPS:
                self._joules = joules()
            return self._next_level() if self._over() else None
        self._block_steps += 1
        self._block_seconds += seconds
        if self._block_seconds >= self._block_length or self._over():
            self._end_block(joules())
        if self._is_known() or self._over() or len(self._seconds) >= MOST_BLOCKS:
            return self._next_level()
        return None

    def disturbed(self) -> None:
        """Say that something else than steps draws energy; the block of steps that is under way begins anew."""
        self._disturbed = True

    def at(self, name: str) -> None:
        """Say at which level the training runs now that all are measured."""
        if name != self._current:
            self._current = name
            self._slower = self._faster = 0

    def levels(self) -> dict[str, Level]:
        """Return the operating points as fractions of the first level's, those that no other one dominates.

        A level is dominated by one that is at least as fast and draws no more. The first level is always there.
        """
        full = self.points.get(self.names[0])
        found = {self.names[0]: Level(1.0, 1.0)}
        if full is None or full.watts is None or full.watts <= 0.0:
            return found
        for name in self.names[1:]:
            point = self.points.get(name)
            if point is None or point.watts is None or point.watts <= 0.0:
                continue
            found[name] = Level(min(1.0, point.watts / full.watts), min(1.0, full.seconds / point.seconds))
        return {name: level for name, level in found.items() if name == self.names[0] or not _dominated(level, found)}

    def state(self) -> dict[str, Any]:
        """Return what was measured, as JSON."""
        return {"names": self.names, "points": [asdict(point) for point in self.points.values()]}

    def load(self, state: dict[str, Any]) -> bool:
        """Take over what an earlier run measured; return whether it fits."""
        try:
            points = {point["name"]: OperatingPoint(**point) for point in state["points"]}
        except (KeyError, TypeError):
            return False
        if state.get("names") != self.names or self.names[0] not in points:
            return False
        self.points, self.measuring = points, None
        return True

    # -- one level ----------------------------------------------------------------------------------------------------

    def _allowance(self) -> float:
        return max(0.0, self.budget - self.spent) / len(self.names)

    def _begin_level(self, allowance: float) -> None:
        self._level_budget, self._level_spent, self._skipped = allowance, 0.0, 0
        self._seconds: list[float] = []
        self._watts: list[float] = []
        self._begin_block(None)
        # half of the allowance for the fewest blocks that there may be
        self._block_length = min(LONGEST_BLOCK_SECONDS, allowance / 2 / FEWEST_BLOCKS)

    def _over(self) -> bool:
        # one more step like the last one would pass the allowance
        return self._level_spent + self._last_step > self._level_budget

    def _end_block(self, joules: float | None) -> None:
        self._seconds.append(self._block_seconds / self._block_steps)
        if joules is not None and self._joules is not None:
            self._watts.append((joules - self._joules) / self._block_seconds)
        self._begin_block(joules)

    def _begin_block(self, joules: float | None) -> None:
        self._joules, self._block_steps, self._block_seconds = joules, 0, 0.0
        self._disturbed = False

    def _is_known(self) -> bool:
        if len(self._seconds) < FEWEST_BLOCKS:
            return False
        seen = [self._seconds] + ([self._watts] if len(self._watts) == len(self._seconds) else [])
        return all(half_width(values, self.confidence) <= self.tolerance * fmean(values) for values in seen)

    def _next_level(self) -> str:
        assert self.measuring is not None
        if self._is_known():
            with_power = len(self._watts) == len(self._seconds)
            self.points[self.measuring] = OperatingPoint(
                self.measuring,
                fmean(self._seconds),
                half_width(self._seconds, self.confidence),
                fmean(self._watts) if with_power else None,
                half_width(self._watts, self.confidence) if with_power else None,
            )
        after = self.names.index(self.measuring) + 1
        # without the first level there is nothing to compare with
        if after < len(self.names) and self.names[0] in self.points:
            self.measuring = self.names[after]
            self._begin_level(max(0.0, self.budget - self.spent) / (len(self.names) - after))
            return self.measuring
        self.measuring = None
        self.at(self.names[0])
        self._slower = self._faster = 0
        return self.names[0]

    def _watch(self, seconds: float) -> str | None:
        known = self.points.get(self._current)
        if known is None:
            return None
        ratio = seconds / known.seconds
        self._slower = self._slower + 1 if ratio > 1.0 + DRIFT else 0
        self._faster = self._faster + 1 if ratio < 1.0 / (1.0 + DRIFT) else 0
        if self._slower < FEWEST_BLOCKS and self._faster < FEWEST_BLOCKS:
            return None
        self._slower = self._faster = 0
        needed = (WARM_UP_STEPS + FEWEST_BLOCKS) * seconds * len(self.names)
        if self.spent + needed > self.budget:
            return None
        self.points, self.measuring = {}, self.names[0]
        self._begin_level(self._allowance())
        return self.names[0]


def _dominated(level: Level, levels: dict[str, Level]) -> bool:
    return any(
        other != level and other.power <= level.power and other.speed >= level.speed for other in levels.values()
    )


def half_width(values: Sequence[float], confidence: float) -> float:
    """Return half the width of the confidence interval of a mean, by Student's t distribution.

    Its quantile is the expansion of Abramowitz and Stegun (1964), 26.7.5, within 0.1 % from four degrees of freedom on.

    Example::

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


def least_energy(levels: dict[str, Level], max_slowdown: float) -> str:
    """Return the name of the level with the least energy per step that is not slower than allowed.

    Args:
        levels: Levels by name, the full one among them.
        max_slowdown: How many times longer a step may take.

    Example::

        >>> levels = {"full": Level(1.0, 1.0), "250 W": Level(0.78, 0.9), "200 W": Level(0.6, 0.7)}
        >>> least_energy(levels, 1.15), least_energy(levels, 1.05), least_energy(levels, 1.5)
        ('250 W', 'full', '200 W')

    """
    allowed = {name: level for name, level in levels.items() if 1.0 / level.speed <= max_slowdown + 1e-9}
    return min(allowed, key=lambda name: (allowed[name].power / allowed[name].speed, -allowed[name].speed))
