"""Wait for clean electricity where waiting pays."""

from __future__ import annotations

import os
import shlex
import sys
import time
from datetime import datetime, timedelta
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_green._lightning.loggers import logging_step
from lightning_green.callbacks._green import GreenCallback
from lightning_green.callbacks._plan_maker import PlanMaker
from lightning_green.callbacks._scheduler_arguments import Pause, check_plan_arguments
from lightning_green.callbacks.emissions_tracker import check_options
from lightning_green.energy.meter import Meter
from lightning_green.grid.registry import GridLike
from lightning_green.ledger.run_directory import RUN_DIR_VARIABLE
from lightning_green.planning import Level, Plan
from lightning_green.resume.random_states import synchronize_cuda
from lightning_green.resume.training_state import Point
from lightning_green.run import loggers
from lightning_green.run.options import RunOptions
from lightning_green.run.throttling import SchedulerThrottle, throttle_control
from lightning_green.strategies.control_group import Command
from lightning_green.supervisor.launchers import who_restarts
from lightning_green.throttle.request import FULL, ThrottleLike
from lightning_green.utilities.clock import CLOCK_VARIABLE, Clock
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.validation import check_positive_int

HOLD_TICK_SECONDS = 1.0
HOLD_LOG_SECONDS = 60.0
SIMULATED_HOLD_TICK_SECONDS = 900.0


class CarbonScheduler(GreenCallback):
    r"""Run, hold or leave a training by the carbon intensity of its grid, so that it emits least by its deadline.

    Between two batches it asks the planner what to do with the work that is left: run on, hold in process (the device
    stays allocated and draws ``hold_power``), or save the exact training state and exit, so that the device is free, to
    be started again by ``lightning-green run``. The planner knows what holding and restarting cost; "do not pause" is
    an answer. A run that was paused ends with the weights of the run that never was.

    Without a deadline there is no waiting (unless time has a price), and without a grid nothing to wait for; both are
    said at start. Nothing about carbon stops a training: where the intensity or the work left is not known, it runs
    now.

    Args:
        grid: Carbon intensity; see :class:`~lightning_green.callbacks.EmissionsTracker`.
        deadline: When the training has to be done: a duration such as ``"36h"`` from the run's first start, kept over
            restarts, or an aware datetime.
        on_pause: ``"auto"`` leaves where something will start the run again and holds otherwise, if that pays;
            ``"hold"`` never leaves; ``"exit"`` always leaves and prints the line that continues.
        hold_power: Fraction of full power that is drawn while held, in [0, 1], or ``"measured"``: what the meter saw
            while held, once it has, and 0.25 until then.
        resume_cost: Energy of one exit and return in hours at full power, or ``"measured"``, and 0.1 until it was.
        min_saving: Fraction of run-now emissions below which a pause is not worth it.
        every_n_steps: Consider a decision every so many training batches.
        checkpoint_every: Save the exact state this often, so that a kill costs no more than that; None for never.
        throttle: Lower the power while running where that saves: ``"auto"`` for what this machine lets us set, an
            :class:`~lightning_green.throttle.actuator.Actuator` or several, measured in the first steps; a level that
            you know, such as ``"0.78:0.90"`` (power:speed), or a list of them; None for never. See
            ``docs/throttling.md``.
        max_slowdown: How many times longer a step may take at a level that was measured; 1.15 by default, which lets in
            the 90 % of full speed that 78 % of full power is worth on a typical card, as far as it can be measured.
        delay_price: What an hour more until the end is worth, in gCO2e per hour. With it the throttle follows the
            intensity, and a training without a deadline waits for as long as that pays.
        meter: See :class:`~lightning_green.callbacks.EmissionsTracker`.
        zone: Grid zone, for a ``grid`` that does not say it.
        clock: Where the time comes from; the system's clock by default.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument is of a wrong type.

    Example::

        from lightning_green import CarbonScheduler
        scheduler = CarbonScheduler(grid="trace.csv", deadline="36h")
        Trainer(max_epochs=90, callbacks=[scheduler])

    """

    wants_exact = True

    def __init__(
        self,
        grid: GridLike = None,
        deadline: str | timedelta | datetime | None = None,
        on_pause: Pause = "auto",
        hold_power: float | Literal["measured"] = "measured",
        resume_cost: float | Literal["measured"] = "measured",
        min_saving: float = 0.0,
        every_n_steps: int = 1,
        checkpoint_every: str | timedelta | None = "30m",
        throttle: ThrottleLike = None,
        max_slowdown: float = 1.15,
        delay_price: float = 0.0,
        meter: Meter | str | float | None = "auto",
        zone: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_options(grid, zone, meter)
        super().__init__(RunOptions(grid=grid, zone=zone, meter=meter, clock=clock))
        self._asked = check_plan_arguments(deadline, on_pause, hold_power, resume_cost, min_saving, delay_price)
        self.every_n_steps = check_positive_int("every_n_steps", every_n_steps)
        self.checkpoint_every = (
            None if checkpoint_every is None else parse_duration(checkpoint_every, "checkpoint_every")
        )
        self.throttle, self.max_slowdown = throttle, max_slowdown
        throttle_control(self)  # raises for a wrong argument
        self._throttle: SchedulerThrottle | None = None
        self._maker: PlanMaker | None = None
        self._batches = 0

    @property
    def plan(self) -> Plan | None:
        """The last plan of this fit, or None."""
        return None if self._maker is None else self._maker.plan

    # -- hooks --------------------------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._fit is not None:
            self._throttle, self._batches = None, 0
            self._maker = PlanMaker(self._asked, self._fit, self._levels)
            control = throttle_control(self)
            if control is not None:
                self._throttle = SchedulerThrottle(control, self._fit, self._maker.timer)
            self._fit.save_every(self.checkpoint_every)
            self._fit.actions.append(self._at_boundary)
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._fit is not None and self._maker is not None:
            self._batches += 1
            if self._throttle is not None and self._throttle.batch_ended():
                self._maker.next_decision = 0.0  # the levels are known: decide with them
            self._maker.timer.batch(self._fit.session.clock.monotonic())

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._throttle is not None:
            self._throttle.batch_began()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._throttle is not None:
            self._throttle.restore()
        super().teardown(trainer, pl_module, stage)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._throttle is not None:
            self._throttle.restore()
        super().on_exception(trainer, pl_module, exception)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        if self._fit is not None and self._maker is not None and not trainer.sanity_checking:
            self._maker.timer.validation_began(self._fit.session.clock.monotonic())
            if self._throttle is not None:
                self._throttle.disturbed()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self._fit is not None and self._maker is not None and not trainer.sanity_checking:
            self._maker.timer.validation_ended(self._fit.session.clock.monotonic())

    @override
    def startup_lines(self, trainer: pl.Trainer) -> dict[str, str]:
        assert self._maker is not None
        lines = super().startup_lines(trainer) | self._maker.startup_lines()
        if self._throttle is not None:
            lines["Pauses"] += f"; throttling: {self._throttle.describe()}"
        return lines

    # -- decisions ----------------------------------------------------------------------------------------------------

    def _levels(self) -> tuple[Level, ...]:
        return (FULL,) if self._throttle is None else self._throttle.levels()

    def _at_boundary(self, point: Point) -> None:
        if self._batches % self.every_n_steps:
            return
        assert self._fit is not None
        assert self._maker is not None
        if self._fit.session.clock.time() >= self._maker.next_decision:
            self._decide(point, self._maker)

    def _decide(self, point: Point, maker: PlanMaker) -> None:
        """Plan, and act on the first action of the plan."""
        decided = maker.make("running")
        if self._throttle is not None and (decided is not None or maker.energy_only):
            self._throttle.follow(decided)
        if decided is None:
            return
        if decided.slots[0].action == "hold":
            self._hold(point, decided, maker)
        elif decided.slots[0].action == "exit":
            self._exit(point, decided, maker)

    def _exit(self, point: Point, decided: Plan, maker: PlanMaker) -> None:
        fit = self._fit
        assert fit is not None
        until = decided.until
        if who_restarts() is None:
            given = [f"{name}={os.environ[name]}" for name in (RUN_DIR_VARIABLE, CLOCK_VARIABLE) if name in os.environ]
            line = shlex.join([*(["env", *given] if given else []), "python", *sys.argv])
            rank_zero_info(f"Lightning Green: exiting until {until:%Y-%m-%d %H:%M} UTC. To continue, run: {line}")
        fit.exit_until(point, until, decided.reason, **maker.describe(decided))
        maker.why_no_exit = "the training state cannot be saved"  # it came back: run on, and do not try each step
        maker.next_decision = fit.session.clock.time() + 3600.0

    def _hold(self, point: Point, decided: Plan, maker: PlanMaker) -> None:
        """Wait in process until the plan says to go on, or a signal says to stop."""
        fit = self._fit
        assert fit is not None
        assert fit.boundaries is not None
        run, trainer = fit.session, fit.trainer
        real, held_from = time.monotonic(), run.clock.monotonic()
        synchronize_cuda()
        run.meter.set_load(maker.hold_power())
        run.enter(state="held", phase="held", reason=decided.reason, until=decided.until)
        fit.ranks.send(Command.HOLD, maker.hold_power())
        self._log(trainer)
        tick = SIMULATED_HOLD_TICK_SECONDS if run.clock.is_simulated else HOLD_TICK_SECONDS
        next_log = run.clock.time() + HOLD_LOG_SECONDS
        next_plan = decided.slots[0].end.timestamp()
        again: Plan | None = decided
        while not fit.boundaries.stop_requested():
            now = run.clock.time()
            if now >= next_plan:
                again = maker.make("held")
                if again is None or again.slots[0].action not in ("hold", "exit"):
                    break
                if again.slots[0].action == "exit":
                    self._exit(point, again, maker)
                    break
                next_plan = again.slots[0].end.timestamp()
            if now >= next_log:
                run.sample_if_due()
                self._log(trainer)
                next_log = now + HOLD_LOG_SECONDS
            run.clock.sleep(max(0.0, min(tick, next_plan - now)))
        run.meter.set_load(1.0)
        maker.timer.leave_out(run.clock.monotonic() - held_from)
        fit.boundaries.end_hold(time.monotonic() - real)
        run.enter(state="running", phase="training", reason="going on")
        if self._throttle is not None:
            self._throttle.disturbed()
            if again is not None:
                self._throttle.follow(again)
        self._log(trainer)

    def _log(self, trainer: pl.Trainer) -> None:
        assert self._fit is not None
        loggers.log_to_all(trainer, self._fit.session.metrics(), logging_step(trainer))
