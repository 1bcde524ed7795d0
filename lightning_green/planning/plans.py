"""The result of the planner: actions slot by slot, and their expected emissions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from lightning_green.planning.job import Level

Action = Literal["run", "throttle", "hold", "exit"]


class Slot(NamedTuple):
    """One action and its time.

    Attributes:
        start: Start of the slot, aware.
        end: End of the slot, aware.
        action: ``"run"``, ``"throttle"``, ``"hold"`` or ``"exit"``.
        level: Operating point of ``"run"`` and ``"throttle"``; None for a pause.
        intensity: Expected carbon intensity in gCO2e/kWh, or None if unknown.
        gco2e_per_kw: Expected emissions in gCO2e per kW of full power, or None if unknown.
        price: Expected electricity price in money per kWh; None without prices.

    """

    start: datetime
    end: datetime
    action: Action
    level: Level | None = None
    intensity: float | None = None
    gco2e_per_kw: float | None = None
    price: float | None = None


@dataclass(frozen=True)
class Plan:
    """A plan, its expected emissions, and the reason for its first action.

    Args:
        slots: Actions in order, without gaps. The first slot starts at the time of planning.
        gco2e_per_kw: Expected emissions in gCO2e per kW of full power. NaN if the intensity is unknown.
        run_now_gco2e_per_kw: Expected emissions of the run-now baseline, in the same unit.
        saving: Expected saving as a fraction of run-now. May be negative if the deadline forces it.
        saving_std: Standard deviation of the saving, as a fraction of run-now; None if unknown.
        end: Expected end of the work, aware.
        reason: Explanation of the first action, for users.
        late_hours: Hours by which the deadline is missed even without a pause at full speed; 0 if it is met.
        notes: Further information for users: dropped levels, hours that the forecast does not cover.
        cost_per_kw: Expected electricity cost in money per kW of full power; None without prices.
        run_now_cost_per_kw: Expected electricity cost of the run-now baseline, in the same unit.

    """

    slots: tuple[Slot, ...]
    gco2e_per_kw: float
    run_now_gco2e_per_kw: float
    saving: float
    saving_std: float | None
    end: datetime
    reason: str
    late_hours: float = 0.0
    notes: tuple[str, ...] = ()
    cost_per_kw: float | None = None
    run_now_cost_per_kw: float | None = None

    @property
    def until(self) -> datetime:
        """End of the first action: the start of the first slot with another action or level, or the end of the plan."""
        change = self.next_change
        if change is not None:
            return change.start
        return self.slots[-1].end if self.slots else self.end

    def expected_intensities(self) -> tuple[list[float], list[float]]:
        """Return the forecast that the plan is based on, as far as it is known.

        Returns:
            Seconds from the start of the plan at which an intensity begins, and the intensities in gCO2e/kWh.

        """
        seconds, values = list[float](), list[float]()
        for slot in self.slots:
            if slot.intensity is None:
                break
            value = round(slot.intensity, 1)
            if not values or values[-1] != value:
                seconds.append((slot.start - self.slots[0].start).total_seconds())
                values.append(value)
        return seconds, values

    @property
    def next_change(self) -> Slot | None:
        """First slot with another action or level than the first action; None if there is none."""
        first = [(slot.action, slot.level) for slot in self.slots[:1]]
        return next((slot for slot in self.slots if (slot.action, slot.level) not in first), None)
