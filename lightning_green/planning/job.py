"""A job as the planner sees it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from lightning_green.utilities.validation import check_aware, check_number

State = Literal["running", "throttled", "held", "out"]
PAUSES = frozenset({"hold", "exit"})


@dataclass(frozen=True)
class Level:
    """An operating point: power and speed as fractions of full.

    Args:
        power: Fraction of full power in (0, 1].
        speed: Fraction of full speed in (0, 1].

    Raises:
        ValueError: If one of them is out of its range.

    Example::

        >>> Level.parse("0.78:0.90")
        Level(power=0.78, speed=0.9)

    """

    power: float
    speed: float

    def __post_init__(self) -> None:
        check_number("power", self.power, 0.0, 1.0, above_low=True)
        check_number("speed", self.speed, 0.0, 1.0, above_low=True)

    @classmethod
    def parse(cls, text: str) -> Level:
        """Return the level that ``"0.78:0.90"`` (power:speed) names."""
        power, colon, speed = text.partition(":")
        try:
            numbers = float(power), float(speed)
        except ValueError:
            colon = ""
        if not colon:
            raise ValueError(f'A level should be "power:speed" such as "0.78:0.90", got {text!r}.')
        return cls(*numbers)

    def __str__(self) -> str:
        return f"{self.power:g}:{self.speed:g}"


@dataclass(frozen=True)
class Job:
    """Work to be done, and what running, holding and leaving cost.

    Energies are in hours at full power, so that no watt is needed: multiply by the power that the job draws.

    Args:
        work_hours: Work left, in hours at full power and full speed.
        deadline: When the work has to be done, aware; None for a job that may not wait (unless time has a price).
        levels: Operating points; the first is full power and full speed.
        hold_power: Fraction of full power drawn while held in process, in [0, 1].
        resume_cost: Energy of one exit and return, in hours at full power; priced when it returns.
        pauses: The pauses that are possible: ``"hold"``, ``"exit"``, both or none.
        state: What the job is doing now.
        min_saving: Fraction of run-now gCO2e below which a pause is not worth it.
        caution: How many standard deviations of its own uncertainty a hold has to save, and an exit a quarter of it.
            Without a spread of the forecast there is no such margin.
        safety: Fraction of the work left that is kept free before the deadline, against a speed measured too high.
        exit_cost: Energy of leaving (a checkpoint), in hours at full power, where it is not part of ``resume_cost``.
        hold_cost: Energy of going into a hold, in hours at full power.
        hold_resume_cost: Energy of coming back from a hold, in hours at full power.
        delay_price: What an hour more until the end is worth, in gCO2e per hour and kW of full power. With it, a job
            without a deadline may wait or slow down for as long as that pays.
        budget: Emissions that the work left may cause, in gCO2e per kW of full power; None for no limit.
        idle_power: Fraction of full power that the device draws without any job. With it, only what is drawn above
            counts (the incremental account); with 0, all that is drawn while the device is taken (the attributed one).
        embodied_rate: Embodied emissions of the device in gCO2e per hour and kW of full power, for every hour that it
            is taken, running or held.
        stop_rate: Chance per hour of work that the job ends early (early stopping), at most 1. ``work_hours`` is then
            the most that there can be.

    Raises:
        ValueError: If a number is out of its range or not finite, or the deadline is naive.

    """

    work_hours: float
    deadline: datetime | None = None
    levels: tuple[Level, ...] = field(default=(Level(1.0, 1.0),))
    hold_power: float = 0.2
    resume_cost: float = 0.1
    pauses: frozenset[str] = PAUSES
    state: State = "running"
    min_saving: float = 0.0
    caution: float = 0.5
    safety: float = 0.02
    exit_cost: float = 0.0
    hold_cost: float = 0.0
    hold_resume_cost: float = 0.0
    delay_price: float = 0.0
    budget: float | None = None
    idle_power: float = 0.0
    embodied_rate: float = 0.0
    stop_rate: float = 0.0

    def __post_init__(self) -> None:
        check_number("work_hours", self.work_hours, above_low=True, unit="hours")
        if self.deadline is not None:
            check_aware("deadline", self.deadline)
        check_number("hold_power", self.hold_power, 0.0, 1.0)
        for name in ("resume_cost", "exit_cost", "hold_cost", "hold_resume_cost"):
            check_number(name, getattr(self, name), unit="hours at full power")
        for name in ("min_saving", "safety", "stop_rate"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        check_number("caution", self.caution)
        check_number("delay_price", self.delay_price)
        check_number("idle_power", self.idle_power, 0.0, 1.0)
        check_number("embodied_rate", self.embodied_rate, unit="gCO2e per hour and kW")
        if self.budget is not None:
            check_number("budget", self.budget)
        object.__setattr__(self, "levels", _check_levels(self.levels))
        least = min(level.power for level in self.levels)
        if self.idle_power >= least:
            raise ValueError(
                f"`idle_power` should be below the power of every level ({least:g}), got {self.idle_power!r}."
            )
        object.__setattr__(self, "pauses", _check_pauses(self.pauses))
        if self.state not in get_args(State):
            raise ValueError(f"`state` should be one of {', '.join(get_args(State))}, got {self.state!r}.")


def _check_levels(levels: Iterable[Level]) -> tuple[Level, ...]:
    """Return ``levels`` as a tuple whose first entry is full power and full speed."""
    checked = tuple(levels)
    if not checked or not all(isinstance(level, Level) for level in checked):
        raise ValueError(f"`levels` should hold at least one Level, got {levels!r}.")
    if (checked[0].power, checked[0].speed) != (1.0, 1.0):
        raise ValueError(f"The first of `levels` should be full power and full speed (1:1), got {checked[0]}.")
    return checked


def _check_pauses(pauses: Iterable[str]) -> frozenset[str]:
    """Return ``pauses`` as a set of names that are known."""
    checked = frozenset({pauses} if isinstance(pauses, str) else pauses)
    if not checked <= PAUSES:
        raise ValueError(f'`pauses` should hold "hold" and "exit" at most, got {sorted(checked)}.')
    return checked
