"""Pause or throttle a training by the carbon intensity of its grid."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import lightning.pytorch as pl
from typing_extensions import override

from lightning_green._lightning.loggers import logging_step
from lightning_green.callbacks._plan_maker import PlanMaker
from lightning_green.callbacks._scheduler_arguments import Pause, check_plan_arguments
from lightning_green.callbacks._throttling import ThrottlingCallback
from lightning_green.callbacks.emissions_tracker import check_options
from lightning_green.energy.meter import Meter
from lightning_green.grid.registry import GridLike
from lightning_green.planning import Level, Plan
from lightning_green.resume.training_state import Point
from lightning_green.run import loggers
from lightning_green.run.continuing import continue_paused
from lightning_green.run.fit import Fit
from lightning_green.run.hold import Hold
from lightning_green.run.options import RunOptions
from lightning_green.run.throttling import SchedulerThrottle, throttle_controller
from lightning_green.run.verification import Verification
from lightning_green.supervisor.launchers import who_restarts
from lightning_green.throttle.request import FULL, ThrottleLike
from lightning_green.utilities.clock import Clock
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.validation import check_positive_int

RETRY_SECONDS = 3600.0
"""Time until the next decision after a state could not be saved."""


class CarbonScheduler(ThrottlingCallback):
    r"""Pause or throttle a training by the carbon intensity of its grid, and resume it exactly.

    Between two batches it asks the planner what to do with the remaining work: run, pause in process (the device stays
    allocated and draws ``hold_power``), or save the exact training state and exit, so that the device is free until
    ``lightning-green run`` starts the command again. The planner knows the cost of holding and of resuming; "do not
    pause" is a valid plan. A paused run ends with the weights of the run that was never interrupted.

    Without a deadline (or a price of delay) it does not wait, and without a grid there is nothing to wait for; the
    start-up block shows it. A failure of the grid service, a sensor or the clock never stops training: if the intensity
    or the remaining work is unknown, the training runs now.

    Args:
        grid: Carbon intensity; see ``EmissionsTracker``.
        deadline: Time by which the training has to finish: a duration such as ``"36h"`` from the first start of the
            run, kept over restarts, or a time with a time zone: a datetime, or a string such as
            ``"2027-01-31T08:00:00+01:00"``.
        on_pause: ``"auto"`` exits if something will start the run again, and otherwise pauses in process if that pays;
            ``"hold"`` never exits; ``"exit"`` always exits, and prints the command that continues.
        hold_power: Power during a hold as a fraction of full power, in [0, 1]; or ``"measured"``: 0.2 until the meter
            has measured a hold.
        resume_cost: Energy of one exit and resume, in hours at full power; or ``"measured"``: 0.1 until the meter has
            measured one.
        min_saving: Smallest saving that is worth a pause, as a fraction of run-now emissions.
        every_n_steps: Number of training batches between two checks whether a decision is due.
        checkpoint_every: Interval of periodic saves of the exact state, which bounds the loss after a kill; None for
            none.
        throttle: Lower power while running, if that saves: ``"auto"`` for the limits that this machine allows, an
            ``Actuator`` or several, measured during the first steps; a known level such
            as ``"0.78:0.90"`` (power:speed), or a list of levels; None for no throttle. See ``docs/throttling.md``.
        max_slowdown: Longest step at a measured level, relative to full power. The default of 1.15 allows a typical GPU
            to run at 78 % of its power and 90 % of its speed, within the accuracy of the measurement.
        delay_price: Price of one hour of delay in gCO2e. With it the throttle follows the intensity, and a training
            without a deadline waits as long as that pays.
        meter: See ``EmissionsTracker``.
        zone: Grid zone, for a ``grid`` that does not name one.
        clock: Clock of the run; the system clock by default.
        verify: Check the script in the background, as ``lightning-green check`` does, before the first exit; see
            ``docs/check.md``. The run does not exit before the check has ended, and then only where the script resumes
            exactly. For trainings of one process; the device needs memory for a second one. The short runs execute the
            whole script while the training runs: what it writes to absolute paths, to large directories of data or
            with other loggers than CSV, TensorBoard and W&B is written next to the training.
        return_time: Time from starting the command again to its first new step (queue, boot, import, restore): a number
            of hours, a duration such as ``"30min"``, or ``"measured"``: the median over the restarts of this run, and
            the time of its first start before them. The run does not exit for less, the deadline includes it, and
            ``lightning-green run`` starts the command that long before the planned end of the wait.
        price: Electricity price per kWh: a number, or the path of a CSV file with the columns ``datetime`` and
            ``price``, which is read at each start. With it, plans minimize the electricity cost plus ``carbon_price``
            times the emissions, and ``min_saving`` is a fraction of that cost. None to minimize the emissions. See
            ``docs/cost.md``.
        carbon_price: Money per kg CO2e in the currency of ``price``; 0 minimizes the electricity cost alone. Required
            with ``price``.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument is of a wrong type.

    Examples:
        ```python
        from lightning_green import CarbonScheduler
        scheduler = CarbonScheduler(grid="trace.csv", deadline="36h")
        Trainer(max_epochs=90, callbacks=[scheduler])
        ```

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
        verify: bool = False,
        return_time: float | str | timedelta | Literal["measured"] = "measured",
        price: float | str | None = None,
        carbon_price: float | None = None,
    ) -> None:
        check_options(grid, zone, meter)
        super().__init__(RunOptions(grid=grid, zone=zone, meter=meter, clock=clock))
        self._arguments = check_plan_arguments(
            deadline, on_pause, hold_power, resume_cost, min_saving, delay_price, return_time, price, carbon_price
        )
        self.every_n_steps = check_positive_int("every_n_steps", every_n_steps)
        self.checkpoint_every = (
            None if checkpoint_every is None else parse_duration(checkpoint_every, "checkpoint_every")
        )
        if not isinstance(verify, bool):
            raise TypeError(f"`verify` should be True or False, got {verify!r}.")
        self.verify = verify
        self.throttle, self.max_slowdown = throttle, max_slowdown
        throttle_controller(self)  # raises if an argument is wrong
        self._throttle: SchedulerThrottle | None = None
        self._maker: PlanMaker | None = None
        self._verification: Verification | None = None
        self._batches = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_maker": None, "_throttle": None, "_verification": None}

    @property
    def plan(self) -> Plan | None:
        """The last plan of this fit, or None."""
        return None if self._maker is None else self._maker.plan

    @override
    def settings(self) -> dict[str, Any]:
        own = ("every_n_steps", "checkpoint_every", "throttle", "max_slowdown", "verify")
        throttle = str(self.throttle) if isinstance(self.throttle, Level) else self.throttle
        price = None if self._arguments.price is None else str(self._arguments.price)
        arguments = asdict(replace(self._arguments, price=None)) | {"price": price}
        return arguments | {name: getattr(self, name) for name in own} | {"throttle": throttle}

    # -- hooks --------------------------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._fit is not None:
            self._throttle, self._batches = None, 0
            self._verification = self._make_verification(self._fit) if self.verify else None
            self._maker = PlanMaker(self._arguments, self._fit, self._levels, self._verification)
            control = throttle_controller(self)
            if control is not None and self._fit.makes_decisions:
                self._throttle = SchedulerThrottle(control, self._fit, self._maker.timer)
            self._fit.save_every(self.checkpoint_every)
            if self._fit.makes_decisions:
                self._fit.actions.append(self._at_boundary)
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._fit is not None and self._maker is not None:
            self._batches += 1
            if self._throttle is not None and self._throttle.on_batch_end():
                self._maker.next_decision = 0.0  # decide with the levels that are known now
            self._maker.timer.batch(self._fit.clock.monotonic())
            if self._maker.return_time.is_unmeasured:
                self._maker.return_time.batch()

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        if self._fit is not None and self._maker is not None and not trainer.sanity_checking:
            self._maker.timer.validation_began(self._fit.clock.monotonic())

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self._fit is not None and self._maker is not None and not trainer.sanity_checking:
            self._maker.timer.validation_ended(self._fit.clock.monotonic())

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
        assert self._fit is not None
        assert self._maker is not None
        if point == "batch" and self._batches % self.every_n_steps:
            return
        if self._verification is not None and self._verification.has_ended():  # no further call in each batch
            self._maker.next_decision = 0.0
        if self._fit.clock.time() < self._maker.next_decision:
            return
        if point == "epoch" or not self._exits_at_epochs_only(self._fit):
            self._decide(point, self._maker)

    def _make_verification(self, fit: Fit) -> Verification | None:
        if not fit.makes_decisions:  # in a check
            return None
        if fit.trainer.world_size > 1:
            raise ValueError(
                f"`verify` should be False in a training of several processes, here {fit.trainer.world_size}. Run "
                "`lightning-green check -- ...` before it."
            )
        return Verification(fit)

    def _has_news(self) -> bool:
        """Return whether the check of the script has ended since the last call."""
        return self._verification is not None and self._verification.has_ended()

    def _exits_at_epochs_only(self, fit: Fit) -> bool:
        assert self._maker is not None
        return fit.state is not None and fit.state.limits.epochs_only and "exit" in self._maker.pauses()[0]

    def _decide(self, point: Point, maker: PlanMaker) -> None:
        """Plan, and act on the first action of the plan."""
        if self._verification is not None and maker.can_exit():
            self._verification.begin()
        plan = maker.make("running")
        if self._throttle is not None and (plan is not None or maker.energy_only):
            self._throttle.apply(plan)
        if plan is None:
            return
        if plan.slots[0].action == "hold":
            self._hold(point, plan, maker)
        elif plan.slots[0].action == "exit":
            self._exit(point, plan, maker)

    def _exit(self, point: Point, plan: Plan, maker: PlanMaker) -> None:
        """Exit until the end of the plan's first action; returns only if the state cannot be saved here."""
        fit = self._fit
        assert fit is not None
        if point == "batch" and fit.state is not None and fit.state.exits_at_epochs_only():
            maker.next_decision = 0.0  # the end of the epoch decides
            return
        message = None
        if who_restarts() is None:
            line = continue_paused(fit.session.path)
            message = f"Lightning Green: exiting until {plan.until:%Y-%m-%d %H:%M} UTC. {line}"
        fit.ending.exit_until(point, maker.paused_event(plan), message)
        maker.why_no_exit = "the training state cannot be saved"
        maker.next_decision = fit.session.clock.time() + RETRY_SECONDS

    def _hold(self, point: Point, plan: Plan, maker: PlanMaker) -> None:
        """Pause in process, then run or exit as in the last plan."""
        fit = self._fit
        assert fit is not None
        session, held_from = fit.session, fit.session.clock.monotonic()
        hold = Hold(
            fit,
            maker.hold_power(),
            lambda: maker.make("held"),
            lambda: self._has_news() or maker.hold_power_differs(),
        )
        latest = hold.run(plan)
        if latest is not None and latest.slots[0].action == "exit":
            self._exit(point, latest, maker)
        maker.timer.exclude(session.clock.monotonic() - held_from)
        hold.end()
        if self._throttle is not None:
            self._throttle.interrupt()
            if latest is not None:
                self._throttle.apply(latest)
        loggers.log_to_all(fit.trainer, session.metrics(), logging_step(fit.trainer))
