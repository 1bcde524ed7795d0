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
from lightning_green.throttle.controller import ThrottleController, ThrottleState
from lightning_green.throttle.profile_cache import describe_model
from lightning_green.throttle.request import FULL, check_max_slowdown


def throttle_control(scheduler: Any) -> ThrottleController | None:
    """Return the control of a scheduler's ``throttle`` and ``max_slowdown``, None where there is none.

    Raises:
        TypeError: If ``throttle`` is of a wrong type.
        ValueError: If ``max_slowdown`` is below 1.

    """
    check_max_slowdown(scheduler.max_slowdown)
    if scheduler.throttle is None:
        return None
    return ThrottleController(scheduler.throttle, scheduler.max_slowdown)


class SchedulerThrottle:
    """Feeds the steps of a fit to its throttle, and sets the level that the plan or the energy asks for.

    Args:
        control: The throttle.
        fit: The fit.
        timer: Times of the steps; those at a throttle level are counted as what they would have taken at full speed.

    """

    def __init__(self, control: ThrottleController, fit: Fit, timer: StepTimer) -> None:
        self._control, self._fit, self._timer = control, fit, timer
        self._clock = fit.session.clock
        self._began: float | None = None
        self._ended: float | None = None
        self._started = False
        self._used = True
        self._modelled = False
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
        now = self._clock.monotonic()
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
        return self._begin_to_measure() if control.state is ThrottleState.READY else control.on_step(seconds)

    def disturbed(self) -> None:
        """Something else than training batches takes time and energy: it belongs to no level."""
        self._ended = None
        self._control.discard_block()

    def _begin_to_measure(self) -> bool:
        left = work_left(self._fit.trainer, self._timer).seconds
        if left is None:
            return False
        self._control.begin_profiling(left)
        return self._control.state is ThrottleState.DONE

    def levels(self) -> tuple[Level, ...]:
        """Return the levels for the planner, full power first."""
        return self._control.levels()

    def follow(self, plan: Plan | None) -> None:
        """Set the level of a plan's first action; without a plan, the one of least energy per step."""
        if not self._used or self._control.state is not ThrottleState.DONE:
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
        if self._told != self._fit.session.recorder.status.level:
            self._told = self._fit.session.recorder.status.level
            self._fit.ranks.send(Command.SET_LEVEL, self._control.level_number, *self._told)

    def _on_level(self, number: int, power: float, speed: float) -> None:
        """Go where rank 0 goes, on the first process of another node."""
        took = self._control.set_level_number(number)
        self._enter(Level(power, speed) if took else FULL, "as rank 0 does")

    def _measure_alone(self, point: Point) -> None:
        """Have the other nodes at full power while levels are measured again, so that this node alone sets the pace."""
        status = self._fit.session.recorder.status
        if self._control.state is ThrottleState.PROFILING and status.level != (FULL.power, FULL.speed):
            self._enter(FULL, "the levels are measured again")
            self._fit.ranks.send(Command.SET_LEVEL, 0, *status.level)
            self._told = status.level
            self._control.discard_block()

    def restore(self) -> None:
        """Bring every device of this node back to the state in which it was found."""
        self._control.restore()
        if self._fit.session.recorder.status.level != (FULL.power, FULL.speed) and not self._fit.closed:
            self._enter(FULL, "full power again")

    def describe(self) -> str:
        """Return what the throttle may do, for the start-up lines."""
        if (why := self._why_not()) is not None:
            return f"no, {why}"
        request = self._control.request
        kinds = "" if request.auto else ", ".join(actuator.kind for actuator in request.actuators)
        if request.levels:
            levels = ", ".join(str(level) for level in request.levels)
            return f"{levels} (power:speed, stated)" + (f" by {kinds}" if kinds else "")
        return f"{kinds or 'automatic'}, at most {self._control.max_slowdown:g} times slower"

    def _why_not(self) -> str | None:
        """Return why this training is never throttled, or None."""
        if self._fit.why_not_exact is not None:
            return f"because there are no decisions: {self._fit.why_not_exact}"
        if self._fit.session.clock.is_simulated and not self._control.request.levels:
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
            gpus = gpus_of_job(trainer)
            model = describe_model(trainer.lightning_module)
            self._control.start(folder, run.meter, model, on_gpu, self._modelled, gpus, node)
        common = in_common(run, self._fit.ranks, self._control.names)
        if not self._used:
            return  # nothing happens at a step from here on
        self._control.restrict(common)
        self._used = self._control.state is not ThrottleState.UNAVAILABLE and trainer.global_rank == 0
        follower = None if self._fit.boundaries is None else self._fit.boundaries.follower
        if follower is not None:
            follower.on_level = self._on_level
        elif run.node.count > 1:
            self._fit.actions.append(self._measure_alone)

    def _enter(self, level: Level, reason: str) -> None:
        run, wanted = self._fit.session, (level.power, level.speed)
        if wanted == run.recorder.status.level:
            return
        run.recorder.set_level(*wanted)
        state = "running" if level == FULL else "throttled"
        run.enter(state=state, reason=reason, level=str(level))
        rank_zero_info(f"Lightning Green, step {self._fit.trainer.global_step}: {state} at {level} (power:speed)")
