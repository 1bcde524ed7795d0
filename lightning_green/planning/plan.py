"""What the planner answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from lightning_green.planning.job import Level

Action = Literal["run", "throttle", "hold", "exit"]


class Slot(NamedTuple):
    """What to do from ``start`` on.

    Args:
        start: When the slot begins, aware.
        end: When it ends, aware.
        action: ``"run"``, ``"throttle"``, ``"hold"`` or ``"exit"``.
        level: The operating point of ``"run"`` and ``"throttle"``; None for a pause.
        intensity: Carbon intensity that the plan counts on, in gCO2e/kWh; None where nothing is known.
        gco2e_per_kw: Expected emissions of the slot, in gCO2e per kW of full power; None where nothing is known.

    """

    start: datetime
    end: datetime
    action: Action
    level: Level | None = None
    intensity: float | None = None
    gco2e_per_kw: float | None = None


@dataclass(frozen=True)
class Plan:
    """A plan, its price, and why.

    Args:
        slots: What to do and when, in order, without gaps; the first begins at the time of planning.
        gco2e_per_kw: Expected emissions of the plan in gCO2e per kW of full power; NaN where nothing is known.
        run_now_gco2e_per_kw: Expected emissions of running on without a pause, in the same unit.
        saving: Expected saving as a fraction of run-now; may be negative where the deadline forces it.
        saving_std: Standard deviation of the saving, as a fraction of run-now; None where nothing is known about it.
        end: When the work is expected to be done (or the budget spent), aware.
        reason: One sentence for people.
        late_hours: Hours that even running on at full speed ends after the deadline; 0 where it is met.
        undone_hours: Work that an emissions budget leaves undone, in hours at full speed.
        notes: What else a reader should know: levels that were dropped, intensities that had to be filled in.

    """

    slots: tuple[Slot, ...]
    gco2e_per_kw: float
    run_now_gco2e_per_kw: float
    saving: float
    saving_std: float | None
    end: datetime
    reason: str
    late_hours: float = 0.0
    undone_hours: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def until(self) -> datetime:
        """When the first action gives way to another one (or the plan ends)."""
        for slot in self.slots:
            if (slot.action, slot.level) != (self.slots[0].action, self.slots[0].level):
                return slot.start
        return self.slots[-1].end if self.slots else self.end
