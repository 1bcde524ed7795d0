"""A simulated job that counts its own emissions, independent of the planner."""

from __future__ import annotations

from lightning_green.planning.job import Level
from lightning_green.planning.plans import Action
from lightning_green.utilities.validation import check_number

FULL = Level(1.0, 1.0)


class Simulator:
    """A job on a device that carries out one action per slot and counts its emissions.

    It shares no code with the planner, so an error in the planner cannot improve the result. All emissions are in gCO2e
    per kW of full power. Three accounts are kept (Wiesner et al. and the discussion of idle power in the Green Software
    Foundation's SCI use different ones):

    - attributed: all energy that the device draws while it is allocated, holds and restarts included;
    - incremental: only power above ``idle_power``, which the device draws without any job;
    - embodied: ``embodied_rate`` for every hour in which the device is allocated, running or held.

    Args:
        work_hours: Work in hours at full power and full speed.
        hold_power: Fraction of full power drawn while held.
        resume_cost: Energy of a restart after an exit, in hours at full power, drawn in the slot of the restart.
        idle_power: Fraction of full power that the idle device draws.
        embodied_rate: Embodied emissions in gCO2e per hour and kW of full power.

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
        hold_power: float = 0.2,
        resume_cost: float = 0.1,
        idle_power: float = 0.0,
        embodied_rate: float = 0.0,
    ) -> None:
        self.remaining_work = check_number("work_hours", work_hours, above_low=True, unit="hours")
        self.hold_power = check_number("hold_power", hold_power, 0.0, 1.0)
        self.resume_cost = check_number("resume_cost", resume_cost, unit="hours at full power")
        self.idle_power = check_number("idle_power", idle_power, 0.0, 1.0)
        self.embodied_rate = check_number("embodied_rate", embodied_rate, unit="gCO2e per hour and kW")
        self.state: Action = "run"
        self.hours = 0.0
        self.exits = 0
        self.energy = 0.0
        self.attributed = 0.0
        self.incremental = 0.0
        self.embodied = 0.0

    @property
    def done(self) -> bool:
        """Whether the work is done."""
        return self.remaining_work <= 1e-9

    def step(self, action: Action, hours: float, intensity: float, level: Level = FULL) -> None:
        """Carry out one action.

        Args:
            action: ``"run"``, ``"throttle"`` (at ``level``), ``"hold"`` or ``"exit"`` (exit, or stay exited).
            hours: Length of the slot. Only part of it is used if the work ends in it.
            intensity: Recorded carbon intensity of the slot in gCO2e/kWh.
            level: Operating point of ``"throttle"``.

        Raises:
            ValueError: If the work is done, the action is impossible, or a number is out of its range.

        """
        if self.done:
            raise ValueError("The work is done, so no further step is possible.")
        check_number("hours", hours, above_low=True, unit="hours")
        check_number("intensity", intensity, unit="gCO2e/kWh")
        if action == "hold":
            if self.state == "exit":
                raise ValueError("A job that has exited cannot hold. Run it first.")
            self._draw(self.hold_power, hours, intensity)
        elif action == "exit":
            self.exits += self.state != "exit"
        else:
            if self.state == "exit":
                self.energy += self.resume_cost
                self.attributed += self.resume_cost * intensity
                self.incremental += self.resume_cost * intensity
            point = level if action == "throttle" else FULL
            hours = min(hours, self.remaining_work / point.speed)
            self.remaining_work -= hours * point.speed
            self._draw(point.power, hours, intensity)
        self.hours += hours
        self.state = action

    def _draw(self, power: float, hours: float, intensity: float) -> None:
        self.energy += power * hours
        self.attributed += power * hours * intensity
        self.incremental += max(0.0, power - self.idle_power) * hours * intensity
        self.embodied += self.embodied_rate * hours
