"""The information that is available to a policy at the start of an hour."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightning_green.backtest.scenario import DAY, Scenario
from lightning_green.planning.plans import Action
from lightning_green.planning.slots import HOUR, mean_day

Array = NDArray[np.float64]
RECENT_HOURS = 7 * DAY


@dataclass(frozen=True)
class Observation:
    """The state of a run, the known intensities and the issued forecasts at the start of one hour.

    Times are hours since 1970 (UTC). Arrays are slices of the archive that end at the current hour, so later values are
    not accessible.

    Args:
        hour: The hour that starts.
        history: Known intensity of every hour in gCO2e/kWh. The last value belongs to ``known_until - 1``.
        known_until: Hour after the last known one.
        issued: Issue hours of the available forecasts, ascending, shape ``(m,)``.
        forecasts: Predicted intensity of the hours from ``issued`` on, shape ``(m, horizon)``.
        remaining_work: Remaining work in hours at full power.
        hours_to_deadline: Hours until the deadline.
        state: Action in the previous hour; ``"run"`` at the start.
        scenario: The job and its costs: allowed pauses, hold power, resume cost, levels.
        first: Observation at the start of the run; None if this is it.
        perfect: Recorded intensity of the hours from ``hour`` on that the policy may know, for ``--perfect-hours``.

    """

    hour: int
    history: Array
    known_until: int
    issued: NDArray[np.int64]
    forecasts: Array
    remaining_work: float
    hours_to_deadline: float
    state: Action
    scenario: Scenario
    first: Observation | None = None
    perfect: Array = field(default_factory=lambda: np.empty(0))

    @property
    def pause(self) -> Action | None:
        """Pause for policies that use only one kind: an exit if allowed, otherwise a hold, or None."""
        pauses = self.scenario.pauses
        return "exit" if "exit" in pauses else "hold" if "hold" in pauses else None

    def outlook(self) -> Array:
        """Return the newest published forecast for the hours from now to the deadline.

        Its first hours have the values of ``perfect``. Hours that it does not cover are filled with the `climatology`
        or, without a history, with its own last day. The result is empty without a forecast and a history.
        """
        values = self._published()
        known = min(len(self.perfect), len(values))
        return np.concatenate((self.perfect[:known], values[known:])) if known else values

    def _published(self) -> Array:
        """Return the `outlook` without perfect hours."""
        count = int(np.ceil(self.hours_to_deadline - 1e-9))
        typical = self.climatology()
        hours = self.hour + np.arange(count)
        if not len(self.issued):
            return np.empty(0) if typical is None else typical[hours % DAY]
        newest = self.forecasts[-1]
        offset = self.hour - int(self.issued[-1])
        forecast: Array = newest[offset : offset + count]
        if len(forecast) == count:
            return forecast
        if typical is None:
            typical = _typical_day(int(self.issued[-1]) + len(newest), newest[-DAY:])
        return np.concatenate((forecast, typical[hours[len(forecast) :] % DAY]))

    def climatology(self) -> Array | None:
        """Return the mean of each UTC hour over the last seven known days, shape ``(24,)``; None without a history."""
        recent = self.history[-RECENT_HOURS:]
        if not len(recent):
            return None
        return _typical_day(self.known_until, recent)


def _typical_day(end: int, values: Array) -> Array:
    """Return the mean of each UTC hour of hourly ``values`` that end before the hour ``end``, shape ``(24,)``."""
    hours = end - len(values) + np.arange(len(values))
    return mean_day(hours * np.float64(HOUR), values, np.ones(len(values)))
