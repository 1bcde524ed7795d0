"""What the planner answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lightning_green.planning.job import Level

Action = Literal["run", "throttle", "hold", "exit"]


@dataclass(frozen=True)
class Slot:
    """What to do from ``start`` on.

    Args:
        start: When the slot begins, aware.
        end: When it ends, aware.
        action: ``"run"``, ``"throttle"``, ``"hold"`` or ``"exit"``.
        level: The operating point of ``"run"`` and ``"throttle"``; None for a pause.

    """

    start: datetime
    end: datetime
    action: Action
    level: Level | None = None


@dataclass(frozen=True)
class Plan:
    """A plan, its price, and why.

    Args:
        slots: What to do and when, in order, without gaps; the first begins at the time of planning.
        gco2e_per_kw: Expected emissions of the plan in gCO2e per kW of full power.
        run_now_gco2e_per_kw: Expected emissions of running on without a pause, in the same unit.
        saving: Expected saving as a fraction of run-now; may be negative where the deadline forces it.
        saving_std: Standard deviation of the saving, as a fraction of run-now; None where nothing is known about it.
        end: When the work is expected to be done, aware.
        reason: One sentence for people.

    """

    slots: tuple[Slot, ...]
    gco2e_per_kw: float
    run_now_gco2e_per_kw: float
    saving: float
    saving_std: float | None
    end: datetime
    reason: str
