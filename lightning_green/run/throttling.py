"""The throttle of a fit: measures its levels during training, and sets the level of the plan."""

from __future__ import annotations

from enum import Enum
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_green._lightning.process import gpus_of_job
from lightning_green.planning import Plan
from lightning_green.planning.job import Level
from lightning_green.resume.training_state import Point
from lightning_green.run.fit import Fit
from lightning_green.run.node_sync import names_on_all_nodes
from lightning_green.run.remaining_work import StepTimer, remaining_work
from lightning_green.strategies.control_group import Command
from lightning_green.throttle.controller import ThrottleController, ThrottleState
from lightning_green.throttle.profile_cache import describe_model
from lightning_green.throttle.request import FULL
from lightning_green.utilities.validation import check_number


def throttle_controller(scheduler: Any) -> ThrottleController | None:
    """Return the controller for the ``throttle`` and ``max_slowdown`` of a scheduler; None without a throttle.

    Raises:
        TypeError: If ``throttle`` has a wrong type.
        ValueError: If ``max_slowdown`` is below 1.

    """
    check_number("max_slowdown", scheduler.max_slowdown, 1.0)
    if scheduler.throttle is None:
        return None
    return ThrottleController(scheduler.throttle, scheduler.max_slowdown)


class _Mode(Enum):
    """What happens at a training batch."""

    NEW = "the first batch finds out which levels can be set"
    OFF = "nothing"
    SIMULATED = "the simulated clock advances as at the stated level"
    ON = "levels are measured and set"


class SchedulerThrottle:
    """Passes the steps of a fit to its throttle, and sets the level that the plan or the energy asks for.

    The first process of each node sets the devices of its node. Rank 0 decides, and the others set the same level at
    the same batch.

    Args:
        controller: The throttle.
        fit: The fit.
        timer: Step times; a step at a throttle level counts as its time at full speed.

    """

    def __init__(self, controller: ThrottleController, fit: Fit, timer: StepTimer) -> None:
        self._controller, self._fit, self._timer = controller, fit, timer
        self._clock = fit.session.clock
        self._mode = _Mode.NEW
        self._began: float | None = None
        self._ended: float | None = None
        self._sent = (FULL.power, FULL.speed)
        self._least_energy = False

    # -- batches ------------------------------------------------------------------------------------------------------

    def on_batch_start(self) -> None:
        """Note the start of a training batch; the first one finds out which levels can be set."""
        if self._mode is _Mode.NEW:
            self._mode = self._start()
        if self._mode is not _Mode.OFF:
            self._began = self._clock.monotonic()

    def on_batch_end(self) -> bool:
        """Note the end of a training batch; return whether the levels have just become known."""
        if self._began is None:
            return False
        controller, speed, now = self._controller, self._controller.level.speed, self._clock.monotonic()
        if self._mode is _Mode.SIMULATED:
            slower = (now - self._began) * (1.0 / speed - 1.0)
            self._clock.sleep(slower)
            self._timer.exclude(slower)
            return False
        # Measured from the end of the previous batch: waiting for data takes time and energy as well, at any level.
        seconds = None if self._ended is None else now - self._ended
        self._ended = now
        if seconds is None:
            return False
        if speed < 1.0:
            self._timer.exclude(seconds * (1.0 - speed))
        return self._begin_profiling() if controller.state is ThrottleState.READY else controller.on_step(seconds)

    def interrupt(self) -> None:
        """Discard the current measurement: time and energy went into something else than training batches."""
        self._ended = None
        self._controller.discard_block()

    def _begin_profiling(self) -> bool:
        remaining = remaining_work(self._fit.trainer, self._timer).seconds
        if remaining is None:
            return False
        self._controller.begin_profiling(remaining)
        return self._controller.state is ThrottleState.DONE

    def _start(self) -> _Mode:
        session, trainer = self._fit.session, self._fit.trainer
        simulated = session.clock.is_simulated
        usable = session.node.process == 0 and self._why_never() is None
        # Without a ledger, nothing on another node could restore the devices after a kill.
        if usable and (session.ledger is not None or session.node.count == 1):
            folder = None if session.ledger is None else session.ledger.path.parent
            node = "" if session.node.count == 1 else str(session.node.rank)
            on_gpu = trainer.strategy.root_device.type == "cuda"
            model = describe_model(trainer.lightning_module)
            self._controller.start(folder, session.meter, model, on_gpu, simulated, gpus_of_job(trainer), node)
        common = names_on_all_nodes(session, self._fit.ranks, self._controller.names)
        if not usable:
            return _Mode.OFF
        self._controller.restrict(common)
        follower = None if self._fit.boundaries is None else self._fit.boundaries.follower
        if follower is not None:
            follower.on_level = self._on_level
        elif session.node.count > 1:
            self._fit.actions.append(self._measure_alone)
        if self._controller.state is ThrottleState.UNAVAILABLE or trainer.global_rank > 0:
            return _Mode.OFF
        return _Mode.SIMULATED if simulated else _Mode.ON

    # -- levels -------------------------------------------------------------------------------------------------------

    def levels(self) -> tuple[Level, ...]:
        """Return the levels for the planner, full power first."""
        return self._controller.levels()

    def apply(self, plan: Plan | None) -> None:
        """Set the level of a plan's first action; without a plan, the level of least energy per step."""
        plan = None if self._least_energy else plan
        if self._mode is _Mode.OFF or self._controller.state is not ThrottleState.DONE:
            return
        if plan is None:
            self._enter(self._controller.choose(), "the least energy per step")
        elif plan.slots[0].level is not None:
            self._enter(self._controller.choose(plan.slots[0].level), plan.reason)
        else:
            self.restore()
        level = self._fit.session.recorder.status.level
        if self._sent != level:
            self._send(self._controller.level_number)

    def use_least_energy(self, sets: bool = True) -> None:
        """Use the level of least energy per step from now on, whatever the plans.

        Args:
            sets: Whether to set it now; on rank 0, at a boundary.

        """
        self._least_energy = True
        if sets:
            self.apply(None)

    def restore(self) -> None:
        """Restore every device of this node to the state in which it was found."""
        self._controller.restore()
        if self._fit.session.recorder.status.level != (FULL.power, FULL.speed) and not self._fit.closed:
            self._enter(FULL, "full power again")

    def _send(self, number: int) -> None:
        """Send the current level to the other nodes."""
        self._sent = self._fit.session.recorder.status.level
        self._fit.ranks.send(Command.SET_LEVEL, number, *self._sent)

    def _on_level(self, number: int, power: float, speed: float) -> None:
        """Set the level of rank 0, on the first process of another node."""
        level = Level(power, speed) if self._controller.set_level_number(number) else FULL
        self._enter(level, "as rank 0 does")

    def _measure_alone(self, point: Point) -> None:
        """Set the other nodes to full power while this node measures levels, so that it alone sets the pace."""
        level = self._fit.session.recorder.status.level
        if self._controller.state is ThrottleState.PROFILING and level != (FULL.power, FULL.speed):
            self._enter(FULL, "the levels are measured again")
            self._send(0)
            self._controller.discard_block()

    def _enter(self, level: Level, reason: str) -> None:
        session, wanted = self._fit.session, (level.power, level.speed)
        if wanted == session.recorder.status.level:
            return
        session.recorder.set_level(*wanted)
        state = "running" if level == FULL else "throttled"
        session.recorder.enter(state=state, reason=reason, level=str(level))
        rank_zero_info(f"Lightning Green, step {self._fit.trainer.global_step}: {state} at {level} (power:speed)")

    # -- for people ---------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        """Return what the throttle may do, for the start-up block."""
        if (why := self._why_never()) is not None:
            return f"no, {why}"
        request = self._controller.request
        kinds = "" if request.auto else ", ".join(actuator.kind for actuator in request.actuators)
        if request.levels:
            levels = ", ".join(str(level) for level in request.levels)
            return f"{levels} (power:speed, stated)" + (f" by {kinds}" if kinds else "")
        return f"{kinds or 'automatic'}, at most {self._controller.max_slowdown:g} times slower"

    def _why_never(self) -> str | None:
        """Return why this training is never throttled, or None."""
        if self._fit.why_not_exact is not None:
            return f"because there are no decisions: {self._fit.why_not_exact}"
        if self._fit.session.clock.is_simulated and not self._controller.request.levels:
            return "because no device follows a simulated clock; state a level"
        return None
