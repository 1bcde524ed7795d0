"""A job as the planner sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

State = Literal["running", "throttled", "held", "out"]


@dataclass(frozen=True)
class Level:
    """An operating point: power and speed as fractions of full.

    Args:
        power: Fraction of full power in (0, 1].
        speed: Fraction of full speed in (0, 1].

    """

    power: float
    speed: float

    @classmethod
    def parse(cls, text: str) -> Level:
        """Return the level that ``"0.78:0.90"`` (power:speed) names."""
        power, _, speed = text.partition(":")
        return cls(float(power), float(speed))

    def __str__(self) -> str:
        return f"{self.power:g}:{self.speed:g}"


@dataclass(frozen=True)
class Job:
    """Work to be done, and what running, holding and leaving cost.

    Args:
        work_hours: Work left, in hours at full power and full speed.
        deadline: When the work has to be done, aware; None for a job that may not wait.
        levels: Operating points; the first is full power and full speed.
        hold_power: Fraction of full power drawn while held in process, in [0, 1].
        resume_cost: Energy of one exit and return, in hours at full power; priced at the intensity of its hour.
        pauses: The pauses that are possible: ``"hold"``, ``"exit"``, both or none.
        state: What the job is doing now.
        min_saving: Fraction of run-now gCO2e below which a pause is not worth it.

    Raises:
        ValueError: If a number is out of its range or not finite, or the deadline is naive.

    """

    work_hours: float
    deadline: datetime | None = None
    levels: tuple[Level, ...] = field(default=(Level(1.0, 1.0),))
    hold_power: float = 0.2
    resume_cost: float = 0.1
    pauses: frozenset[str] = frozenset({"hold", "exit"})
    state: State = "running"
    min_saving: float = 0.0
