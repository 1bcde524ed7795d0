"""What a policy may know when a slot of a replayed run begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.job import Level
from lightning_green.planning.plan import Action

Array = NDArray[np.float64]
DAY = 24
RECENT = 7 * DAY


@dataclass(frozen=True)
class View:
    """A run, its past and the forecasts at the beginning of one hour; times are hours since 1970 (UTC).

    It holds copies of nothing and slices of the past only: what happens later is not in it.

    Args:
        hour: The hour that begins.
        past: Recorded intensity of every hour that is known, in gCO2e/kWh; the last one is that of ``known_until - 1``.
        known_until: Hour after the last known one.
        issued: Hours in which the forecasts that exist by now were issued, ascending.
        forecasts: What each of them says, shape ``(len(issued), horizon)``.
        work_left: Work left in hours at full power.
        hours_left: Hours until the deadline.
        state: What the job did in the hour before; ``"run"`` at first.
        pauses: The pauses that are possible.
        hold_power: Fraction of full power drawn while held.
        resume_cost: Energy of an exit and return in hours at full power.
        levels: Operating points; the first is full.
        idle_power: Fraction of full power that does not count, since the device draws it without any job.
        embodied_rate: Embodied emissions in gCO2e per hour and kW of full power while the device is taken.
        first: The view at the beginning of the run; None where this is it.

    """

    hour: int
    past: Array
    known_until: int
    issued: NDArray[np.int64]
    forecasts: Array
    work_left: float
    hours_left: float
    state: Action
    pauses: frozenset[str]
    hold_power: float
    resume_cost: float
    levels: tuple[Level, ...]
    idle_power: float = 0.0
    embodied_rate: float = 0.0
    first: View | None = None

    @property
    def pause(self) -> Action | None:
        """How a policy that knows one kind of pause makes it: by an exit where that is possible."""
        return "exit" if "exit" in self.pauses else "hold" if "hold" in self.pauses else None

    def outlook(self) -> Array:
        """Return the newest forecast for the hours from now to the deadline, as it was published.

        Hours it does not reach are filled with the mean of the same hour of the last seven days, and the latest known
        day where there is less. Empty where nothing is known.
        """
        count = int(np.ceil(self.hours_left - 1e-9))
        filled = self.usual_day()
        hours = self.hour + np.arange(count)
        if not len(self.issued):
            return np.empty(0) if filled is None else filled[hours % DAY]
        newest = self.forecasts[-1]
        offset = self.hour - int(self.issued[-1])
        own: Array = newest[offset : offset + count]
        if len(own) == count:
            return own
        if filled is None:
            filled = newest[-DAY:][(np.arange(DAY) - int(self.issued[-1]) - len(newest)) % DAY]
        return np.concatenate((own, filled[hours[len(own) :] % DAY]))

    def usual_day(self) -> Array | None:
        """Return the mean of each UTC hour over the last seven known days, shape ``(24,)``; None without a past."""
        recent = self.past[-RECENT:]
        if not len(recent):
            return None
        hour = (self.known_until - len(recent) + np.arange(len(recent))) % DAY
        count = np.bincount(hour, minlength=DAY)
        total = np.bincount(hour, recent, DAY)
        day: Array = np.where(count > 0, total / np.maximum(count, 1), recent.mean())
        return day
