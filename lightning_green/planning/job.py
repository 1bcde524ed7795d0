"""The job to plan: remaining work, deadline, operating points and costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, get_args

from lightning_green.planning.prices import PriceSeries
from lightning_green.utilities.validation import check_aware, check_number

State = Literal["running", "throttled", "held", "out"]
PAUSES = frozenset({"hold", "exit"})
HOLD_POWER = 0.2
"""Default power of a hold as a fraction of full power, for every command until it is measured."""


@dataclass(frozen=True)
class Level:
    """An operating point: power and speed as fractions of full.

    Args:
        power: Fraction of full power in (0, 1].
        speed: Fraction of full speed in (0, 1].

    Raises:
        ValueError: If one of them is out of its range.

    Examples:
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
        """Return the level described by ``"power:speed"``, such as ``"0.78:0.90"``.

        Args:
            text: Power and speed, separated by a colon.

        Raises:
            ValueError: If the text has another form or a number is out of its range.

        """
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
    """Remaining work, and the costs of running, holding and exiting.

    Energies are in hours at full power, so no watts are needed. Multiply by the power of the job to get kWh.

    Args:
        work_hours: Remaining work, in hours at full power and full speed.
        deadline: Time by which the work must be done, aware. A job without a deadline does not wait, unless
            ``delay_price`` is set.
        levels: Operating points. The first is full power and full speed.
        hold_power: Fraction of full power drawn while held in process, in [0, 1].
        resume_cost: Energy of one exit and restart, in hours at full power, drawn in the slot of the restart.
        pauses: Allowed pauses: ``"hold"``, ``"exit"``, both or none.
        state: Current state of the job.
        min_saving: Minimum saving of a pause, as a fraction of the run-now emissions.
        caution: Minimum saving of a hold, in standard deviations of that saving. An exit needs a quarter of it. Ignored
            for a forecast without ``spread``.
        safety: Fraction of the remaining work that is kept free before the deadline, in case the measured speed is too
            high.
        exit_cost: Energy of an exit (a checkpoint) in hours at full power, if not included in ``resume_cost``.
        hold_cost: Energy of entering a hold, in hours at full power.
        hold_resume_cost: Energy of resuming from a hold, in hours at full power.
        delay_price: Price of an hour of delay, in gCO2e per hour and kW of full power. With it, a job without a
            deadline may wait or slow down.
        return_time: Hours from starting an exited job again to its first new step: queue, boot, import, restore. An
            exit lasts at least as long, and the job has to be started again that long before the end of the exit.
        out_power: Fraction of full power drawn while exited, in addition to ``resume_cost``: the idle power of devices
            that stay allocated.
        prices: Electricity prices. With them the plan minimizes the electricity cost plus ``carbon_price`` times the
            emissions, instead of the emissions.
        carbon_price: Money per kg CO2e; 0 minimizes the electricity cost alone. Ignored without ``prices``.
        full_kw: Full power of the job in kW, PUE included, to describe savings in grams; None if it is not known.

    Raises:
        ValueError: If a number is out of its range or not finite, or the deadline is naive.

    Examples:
        >>> Job(work_hours=3.5, resume_cost=0.2, pauses={"exit"}).levels
        (Level(power=1.0, speed=1.0),)

    """

    work_hours: float
    deadline: datetime | None = None
    levels: tuple[Level, ...] = field(default=(Level(1.0, 1.0),))
    hold_power: float = HOLD_POWER
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
    return_time: float = 0.0
    out_power: float = 0.0
    full_kw: float | None = None
    prices: PriceSeries | None = None
    carbon_price: float = 0.0

    def __post_init__(self) -> None:
        check_number("work_hours", self.work_hours, above_low=True, unit="hours")
        if self.deadline is not None:
            check_aware("deadline", self.deadline)
        for name in ("hold_power", "out_power"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        check_number("return_time", self.return_time, unit="hours")
        for name in ("resume_cost", "exit_cost", "hold_cost", "hold_resume_cost"):
            check_number(name, getattr(self, name), unit="hours at full power")
        for name in ("min_saving", "safety"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        check_number("caution", self.caution)
        check_number("delay_price", self.delay_price)
        check_number("carbon_price", self.carbon_price, unit="money per kg CO2e")
        if self.full_kw is not None:
            check_number("full_kw", self.full_kw, unit="kW")
        object.__setattr__(self, "levels", _check_levels(self.levels))
        object.__setattr__(self, "pauses", _check_pauses(self.pauses))
        if self.state not in get_args(State):
            raise ValueError(f"`state` should be one of {', '.join(get_args(State))}, got {self.state!r}.")

    def to_json(self, now: float | None = None) -> dict[str, Any]:
        """Return the job as JSON data, for another process that plans it. See `from_json`.

        The state is not included, because it changes between the two processes.

        Args:
            now: Current time in POSIX seconds: only prices of the week before and after it are included; None for all.

        Examples:
            >>> Job.from_json(Job(3.5, resume_cost=0.2).to_json(), "out").resume_cost
            0.2

        """
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "state"} | {
            "deadline": None if self.deadline is None else self.deadline.isoformat(),
            "levels": [f"{level.power}:{level.speed}" for level in self.levels],
            "pauses": sorted(self.pauses),
            "prices": None if self.prices is None else self.prices.to_json(now),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], state: State) -> Job:
        """Return the job written by `to_json`. Missing fields get their defaults, unknown ones are ignored.

        Args:
            content: JSON data with at least ``work_hours``.
            state: Current state of the job.

        Raises:
            KeyError: If ``work_hours`` is missing.
            ValueError: If a value is out of its range.

        """
        deadline = content.get("deadline")
        levels = content.get("levels") or ["1:1"]
        prices = content.get("prices")
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        return cls(
            **known
            | {
                "work_hours": content["work_hours"],
                "deadline": None if deadline is None else datetime.fromisoformat(deadline),
                "prices": None if prices is None else PriceSeries.from_json(prices),
                "levels": tuple(Level.parse(level) for level in levels),
                "state": state,
            }
        )


def _check_levels(levels: Iterable[Level]) -> tuple[Level, ...]:
    """Return ``levels`` as a tuple whose first entry is full power and full speed."""
    checked = tuple(levels)
    if not checked or not all(isinstance(level, Level) for level in checked):
        raise ValueError(f"`levels` should contain at least one Level, got {levels!r}.")
    if (checked[0].power, checked[0].speed) != (1.0, 1.0):
        raise ValueError(f"The first of `levels` should be full power and full speed (1:1), got {checked[0]}.")
    return checked


def _check_pauses(pauses: Iterable[str]) -> frozenset[str]:
    """Return ``pauses`` as a set of valid names."""
    checked = frozenset({pauses} if isinstance(pauses, str) else pauses)
    if not checked <= PAUSES:
        raise ValueError(f'`pauses` should contain only "hold" and "exit", got {sorted(checked)}.')
    return checked
