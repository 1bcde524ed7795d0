"""A simulated job that counts its own emissions, independent of the planner."""

from __future__ import annotations

from lightning_green.planning.job import HOLD_POWER, Level
from lightning_green.planning.plans import Action
from lightning_green.utilities.validation import check_number

FULL = Level(1.0, 1.0)


class Simulator:
    """A job on a device that carries out one action per slot and counts its emissions.

    It shares no code with the planner, so an error in the planner cannot improve the result. ``attributed`` are the
    emissions of all energy that the device draws while it is allocated, holds and restarts included, in gCO2e per kW
    of full power. ``cost`` is the electricity cost of the same energy.

    Args:
        work_hours: Work in hours at full power and full speed.
        hold_power: Fraction of full power drawn while held.
        resume_cost: Energy of a restart after an exit, in hours at full power, drawn in the slot of the restart.
        return_time: Hours from a restart after an exit to the first work.
        out_power: Fraction of full power drawn while exited and during the return.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> job = Simulator(work_hours=2, hold_power=0.2, resume_cost=0.1)
        >>> for action, intensity in [("run", 100), ("exit", 400), ("run", 50)]:
        ...     job.step(action, 1.0, intensity)
        >>> job.attributed, job.exits, job.hours
        (155.0, 1, 3.0)

    """

    def __init__(
        self,
        work_hours: float,
        *,
        hold_power: float = HOLD_POWER,
        resume_cost: float = 0.1,
        return_time: float = 0.0,
        out_power: float = 0.0,
    ) -> None:
        self.remaining_work = check_number("work_hours", work_hours, above_low=True, unit="hours")
        self.hold_power = check_number("hold_power", hold_power, 0.0, 1.0)
        self.resume_cost = check_number("resume_cost", resume_cost, unit="hours at full power")
        self.return_time = check_number("return_time", return_time, unit="hours")
        self.out_power = check_number("out_power", out_power, 0.0, 1.0)
        self.returning = 0.0
        self.state: Action = "run"
        self.hours = 0.0
        self.exits = 0
        self.attributed = 0.0
        self.cost = 0.0

    @property
    def hours_to_work(self) -> float:
        """Hours until the next work if the job runs from now on; 0 unless it has exited or is returning."""
        return self.return_time if self.state == "exit" else self.returning

    @property
    def done(self) -> bool:
        """Whether the work is done."""
        return self.remaining_work <= 1e-9

    def step(self, action: Action, hours: float, intensity: float, level: Level = FULL, price: float = 0.0) -> None:
        """Carry out one action. The first ``return_time`` hours of work after an exit are spent on the return.

        Args:
            action: ``"run"``, ``"throttle"`` (at ``level``), ``"hold"`` or ``"exit"`` (exit, or stay exited).
            hours: Length of the slot. Only part of it is used if the work ends in it.
            intensity: Recorded carbon intensity of the slot in gCO2e/kWh.
            level: Operating point of ``"throttle"``.
            price: Electricity price of the slot in money per kWh; may be negative.

        Raises:
            ValueError: If the work is done, the job pauses while it returns, the action is impossible, or a number is
                out of its range.

        """
        if self.done:
            raise ValueError("The work is done, so no further step is possible.")
        check_number("hours", hours, above_low=True, unit="hours")
        check_number("intensity", intensity, unit="gCO2e/kWh")

        def use(energy: float) -> None:
            self.attributed += energy * intensity
            self.cost += energy * price

        if self.returning and action in ("hold", "exit"):
            raise ValueError("A job that returns from an exit cannot pause before its first work.")
        if action == "hold":
            if self.state == "exit":
                raise ValueError("A job that has exited cannot hold. Run it first.")
            use(self.hold_power * hours)
        elif action == "exit":
            self.exits += self.state != "exit"
            use(self.out_power * hours)
        else:
            if self.state == "exit":
                use(self.resume_cost)
                self.returning = self.return_time
            if self.returning:
                returned = min(hours, self.returning)
                self.returning = self.returning - returned if self.returning - returned > 1e-9 else 0.0
                use(self.out_power * returned)
                self.hours += returned
                hours -= returned
            point = level if action == "throttle" else FULL
            hours = min(hours, self.remaining_work / point.speed)
            self.remaining_work -= hours * point.speed
            use(point.power * hours)
        self.hours += hours
        self.state = action
