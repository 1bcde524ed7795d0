"""The throttle as the scheduler uses it: between two batches of one fit."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_green._lightning.process import gpus_of_job
from lightning_green.planning import Plan
from lightning_green.planning.job import Level
from lightning_green.resume.training_state import Point
from lightning_green.run.fit import Fit
from lightning_green.run.node_sync import in_common
from lightning_green.run.remaining_work import StepTimer, work_left
from lightning_green.strategies.control_group import Command
from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.controller import ThrottleControl, check_slowdown, describe_model
from lightning_green.throttle.request import FULL


def throttle_control(scheduler: Any) -> ThrottleControl | None:
    """Return the control of a scheduler's ``throttle`` and ``max_slowdown``, None where there is none.

    Raises:
        TypeError: If ``throttle`` is of a wrong type.
        ValueError: If ``max_slowdown`` is below 1.

    """
    check_slowdown(scheduler.max_slowdown)
    if scheduler.throttle is None:
        return None
    return ThrottleControl(scheduler.throttle, scheduler.max_slowdown)


class SchedulerThrottle:
    """Feeds the steps of a fit to its throttle, and sets the level that the plan or the energy asks for.

    Args:
        control: The throttle.
        fit: The fit.
        timer: Times of the steps; those at a throttle level are counted as what they would have taken at full speed.

    """

    def __init__(self, control: ThrottleControl, fit: Fit, timer: StepTimer) -> None:
        self._control, self._fit, self._timer = control, fit, timer
        self._clock = fit.session.clock
        self._began: float | None = None
        self._ended: float | None = None
        self._started = False
        self._used = True
        self._modelled = False
        self._sleepers: list[Actuator] = []
        self._told = (FULL.power, FULL.speed)

    def batch_began(self) -> None:
        """A training batch begins; the first one finds out what may be set."""
        if not self._started:
            self._started = True
            self._start()
        if self._used:
            self._began = self._clock.monotonic()

    def batch_ended(self) -> bool:
        """A training batch has ended. Return whether the levels have just become known."""
        if self._began is None:
            return False
        control, speed = self._control, self._control.level.speed
        for actuator in self._sleepers:
            actuator.on_step(self._clock.monotonic() - self._began)
        now = self._clock.monotonic()  # with what a duty cycle slept
        if self._modelled:
            slower = (now - self._began) / speed - (now - self._began)
            self._clock.sleep(slower)
            self._timer.leave_out(slower)
            return False
        # from the end of the batch before: waiting for data takes time and energy as well, at any level
        seconds = None if self._ended is None else now - self._ended
        self._ended = now
        if seconds is None:
            return False
        if speed < 1.0:
            self._timer.leave_out(seconds * (1.0 - speed))
        if control.profile is not None:
            return control.on_step(seconds)
        return not control.stated and self._begin_to_measure()

    def disturbed(self) -> None:
        """Something else than training batches takes time and energy: it belongs to no level."""
        self._ended = None
        self._control.disturbed()

    def _begin_to_measure(self) -> bool:
        left = work_left(self._fit.trainer, self._timer).seconds
        if left is None:
            return False
        self._control.plan_for(left)
        return not self._control.measuring

    def levels(self) -> tuple[Level, ...]:
        """Return the levels for the planner, full power first."""
        return self._control.levels()

    def follow(self, plan: Plan | None) -> None:
        """Set the level of a plan's first action; without a plan, the one of least energy per step."""
        if not self._used or not self._control.knows:
            return
        if plan is None:
            self._enter(self._control.choose(), "the least energy per step")
        elif plan.slots[0].level is not None:
            self._enter(self._control.choose(plan.slots[0].level), plan.reason)
        else:
            self.restore()
        self._tell_other_nodes()

    def _tell_other_nodes(self) -> None:
        """Have the other nodes go to the level that this one is at; at a boundary, where they listen."""
        if self._told != self._fit.session.level:
            self._told = self._fit.session.level
            self._fit.ranks.send(Command.SET_LEVEL, self._control.number, *self._told)

    def _on_level(self, number: int, power: float, speed: float) -> None:
        """Go where rank 0 goes, on the first process of another node."""
        took = self._control.go_to(number)
        self._enter(Level(power, speed) if took else FULL, "as rank 0 does")

    def _measure_alone(self, point: Point) -> None:
        """Have the other nodes at full power while levels are measured again, so that this node alone sets the pace."""
        if self._control.measuring and self._fit.session.level != (FULL.power, FULL.speed):
            self._enter(FULL, "the levels are measured again")
            self._fit.ranks.send(Command.SET_LEVEL, 0, *self._fit.session.level)
            self._told = self._fit.session.level
            self._control.disturbed()

    def restore(self) -> None:
        """Bring every device of this node back to the state in which it was found."""
        self._control.restore()
        if self._fit.session.level != (FULL.power, FULL.speed) and not self._fit.closed:
            self._enter(FULL, "full power again")

    def describe(self) -> str:
        """Return what the throttle may do, for the start-up lines."""
        if (why := self._why_not()) is not None:
            return f"no, {why}"
        kinds = "" if self._control.auto else ", ".join(actuator.kind for actuator in self._control.actuators)
        if self._control.stated:
            levels = ", ".join(str(level) for level in self._control.stated)
            return f"{levels} (power:speed, stated)" + (f" by {kinds}" if kinds else "")
        return f"{kinds or 'automatic'}, at most {self._control.max_slowdown:g} times slower"

    def _why_not(self) -> str | None:
        """Return why this training is never throttled, or None."""
        if self._fit.why_not_exact is not None:
            return f"because there are no decisions: {self._fit.why_not_exact}"
        if self._fit.session.clock.is_simulated and not self._control.stated:
            return "because no device follows a simulated clock; state a level"
        return None

    def _start(self) -> None:
        run, trainer = self._fit.session, self._fit.trainer
        self._modelled = run.clock.is_simulated
        # the first process of each node sets its devices on rank 0's word, for which all of them wait, so all change at
        # the same batch; in every step they wait for each other, so its time is that of the slowest
        self._used = run.node.process == 0 and self._why_not() is None
        if self._used and (run.ledger is not None or run.node.count == 1):  # else nothing could restore it after a kill
            folder = None if run.ledger is None else run.ledger.path.parent
            node = "" if run.node.count == 1 else str(run.node.rank)
            on_gpu = trainer.strategy.root_device.type == "cuda"
            gpus, ranks = gpus_of_job(trainer), trainer.world_size
            model = describe_model(trainer.lightning_module)
            self._control.start(folder, run.meter, model, on_gpu, self._modelled, gpus, ranks, node)
        common = in_common(run, self._fit.ranks, self._control.names())
        if not self._used:
            return  # nothing happens at a step from here on
        self._control.keep(common)
        self._used = self._control.can_set and trainer.global_rank == 0
        if self._fit.follower is not None:
            self._fit.follower.on_level = self._on_level
        elif run.node.count > 1:
            self._fit.on_boundary.append(self._measure_alone)
        if not self._modelled:
            self._sleepers = [one for one in self._control.actuators if type(one).on_step is not Actuator.on_step]

    def _enter(self, level: Level, reason: str) -> None:
        run, wanted = self._fit.session, (level.power, level.speed)
        if wanted == run.level:
            return
        run.meter.sample()
        run.record("sample")  # what was used so far belongs to the level before
        run.level = wanted
        run.meter.set_load(level.power)
        state = "running" if level == FULL else "throttled"
        run.enter(state=state, reason=reason, level=str(level))
        rank_zero_info(f"Lightning Green, step {self._fit.trainer.global_step}: {state} at {level} (power:speed)")
