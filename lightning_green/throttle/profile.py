"""Power and speed of each throttle level, measured during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from lightning_green.planning.job import Level
from lightning_green.throttle.measurement import (
    MIN_BLOCKS,
    WARM_UP_STEPS,
    LevelMeasurement,
    OperatingPoint,
    Precision,
)

DRIFT = 0.25
"""Relative change of the step time that counts as drift."""


class DriftDetector:
    """Detect a step time that differs from a reference by more than ``DRIFT`` in consecutive steps."""

    def __init__(self) -> None:
        self._slower = self._faster = 0

    def reset(self) -> None:
        """Forget the previous steps."""
        self._slower = self._faster = 0

    def on_step(self, seconds: float, reference: float) -> bool:
        """Add a step and return whether the step time has drifted."""
        ratio = seconds / reference
        self._slower = self._slower + 1 if ratio > 1.0 + DRIFT else 0
        self._faster = self._faster + 1 if ratio < 1.0 / (1.0 + DRIFT) else 0
        if self._slower < MIN_BLOCKS and self._faster < MIN_BLOCKS:
            return False
        self.reset()
        return True


class ThrottleProfile:
    """Measure step time and power of each level during the first training steps.

    The measured steps are ordinary training steps; only their speed differs. All measurements together take at most
    ``share`` of the run. Levels that are not known precisely enough by then are not offered. When the step time drifts
    later, the levels are measured again within the same budget.

    Args:
        names: Names of the levels; the first one is the original state.
        run_seconds: Expected duration of the run in s.
        confidence: Confidence level of the intervals.
        tolerance: Largest half-width of an interval, as a fraction of the mean.
        share: Largest fraction of the run that measurements may take.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        ```python
        profile = ThrottleProfile(["300 W", "250 W"], run_seconds=36000)
        level = profile.on_step(0.21, joules)  # name of the level to set, or None for no change
        ```

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
            raise ValueError(f"`names` should contain two or more different levels, got {list(names)!r}.")
        if not run_seconds >= 0.0:
            raise ValueError(f"`run_seconds` should be 0 or more, got {run_seconds!r}.")
        self.names = list(names)
        self.budget = share * run_seconds
        self.spent = 0.0
        self.points: dict[str, OperatingPoint] = {}
        self._precision = Precision(confidence, tolerance)
        self._current = self.names[0]
        self._drift = DriftDetector()
        self._measurement: LevelMeasurement | None = None
        self._measure(self.names[0])

    @property
    def measuring(self) -> str | None:
        """Name of the level that is being measured, or None when all levels are measured."""
        return None if self._measurement is None else self._measurement.name

    def on_step(self, seconds: float, joules: Callable[[], float | None]) -> str | None:
        """Add a training step and return the name of the level to set, or None for no change.

        Args:
            seconds: Duration of the step in s.
            joules: Reads the cumulative energy in J; None if not all energy is measured. Called once per block of
                steps.

        """
        if self._measurement is None:
            return self._check_drift(seconds)
        self.spent += seconds
        return self._next_level() if self._measurement.on_step(seconds, joules) else None

    def discard_block(self) -> None:
        """Discard the current block of steps, because something other than a training step used time or energy."""
        if self._measurement is not None:
            self._measurement.discard_block()

    def set_current(self, name: str) -> None:
        """Set the level at which the training runs while no level is being measured."""
        if name != self._current:
            self._current = name
            self._drift.reset()

    def levels(self) -> dict[str, Level]:
        """Return the measured levels as fractions of the first level, without dominated levels.

        A level is dominated if another one is at least as fast and draws no more power. The first level is always
        included.
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
        """Return the measured operating points, as JSON."""
        return {"names": self.names, "points": [asdict(point) for point in self.points.values()]}

    def load(self, state: dict[str, Any]) -> bool:
        """Load the operating points of an earlier run and return whether they match the levels."""
        try:
            points = {point["name"]: OperatingPoint(**point) for point in state["points"]}
            if not all(map(_is_plausible, points.values())):
                return False
        except (KeyError, TypeError):
            return False
        if state.get("names") != self.names or self.names[0] not in points:
            return False
        self.points, self._measurement = points, None
        return True

    def _measure(self, name: str) -> None:
        """Start to measure a level with an equal share of the remaining budget."""
        remaining = len(self.names) - self.names.index(name)
        budget = max(0.0, self.budget - self.spent) / remaining
        self._measurement = LevelMeasurement(name, budget, self._precision)

    def _next_level(self) -> str:
        assert self._measurement is not None
        name, point = self._measurement.name, self._measurement.result()
        if point is not None:
            self.points[name] = point
        following = self.names.index(name) + 1
        # Other levels are fractions of the first one, so nothing else is measured if the first one is unknown.
        if following < len(self.names) and self.names[0] in self.points:
            self._measure(self.names[following])
            return self.names[following]
        self._measurement = None
        self._current = self.names[0]
        self._drift.reset()
        return self.names[0]

    def _check_drift(self, seconds: float) -> str | None:
        point = self.points.get(self._current)
        if point is None or not self._drift.on_step(seconds, point.seconds):
            return None
        needed = (WARM_UP_STEPS + MIN_BLOCKS) * seconds * len(self.names)
        if self.spent + needed > self.budget:
            return None
        self.points = {}
        self._measure(self.names[0])
        return self.names[0]


def _dominated(level: Level, levels: dict[str, Level]) -> bool:
    return any(
        other != level and other.power <= level.power and other.speed >= level.speed for other in levels.values()
    )


def least_energy(levels: dict[str, Level], max_slowdown: float) -> str:
    """Return the name of the level with the least energy per step among those that are fast enough.

    Args:
        levels: Levels by name, including full power.
        max_slowdown: Largest ratio of the step time to that at full power.

    Examples:
        >>> levels = {"full": Level(1.0, 1.0), "250 W": Level(0.78, 0.9), "200 W": Level(0.6, 0.7)}
        >>> least_energy(levels, 1.15), least_energy(levels, 1.05), least_energy(levels, 1.5)
        ('250 W', 'full', '200 W')

    """
    allowed = {name: level for name, level in levels.items() if 1.0 / level.speed <= max_slowdown + 1e-9}
    return min(allowed, key=lambda name: (allowed[name].power / allowed[name].speed, -allowed[name].speed))


def _is_plausible(point: OperatingPoint) -> bool:
    """Return whether the numbers of a point from a file can be those of a measurement."""
    errors = (point.seconds_error, *([] if point.watts_error is None else [point.watts_error]))
    return (
        isinstance(point.name, str)
        and 0.0 < point.seconds < float("inf")
        and (point.watts is None or 0.0 <= point.watts < float("inf"))
        and all(error >= 0.0 for error in errors)
    )
