"""Stop, pause or throttle a training when a budget is used."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_green.budget.limits import Limits
from lightning_green.budget.status import BudgetStatus
from lightning_green.callbacks._budget_arguments import OnExceeded, check_budget_arguments
from lightning_green.callbacks._budget_check import BudgetCheck
from lightning_green.callbacks._throttling import ThrottlingCallback
from lightning_green.callbacks.carbon_scheduler import CarbonScheduler
from lightning_green.callbacks.emissions_tracker import check_options
from lightning_green.energy.meter import Meter
from lightning_green.grid.registry import GridLike
from lightning_green.ledger.events import Paused
from lightning_green.resume.training_state import Point
from lightning_green.run.continuing import continue_paused
from lightning_green.run.fit import Fit
from lightning_green.run.options import RunOptions
from lightning_green.run.remaining_work import StepTimer
from lightning_green.run.throttling import SchedulerThrottle, throttle_controller
from lightning_green.strategies.control_group import Command
from lightning_green.supervisor.launchers import who_restarts
from lightning_green.throttle.request import ThrottleLike
from lightning_green.utilities.clock import Clock


class EnergyBudget(ThrottlingCallback):
    r"""Stop, pause or throttle a training when a budget in kWh, gCO2e or money is used.

    Without a ``directory`` it is the budget of the run: all its fits, restarts and nodes, idle energy included. With a
    ``directory`` it is the budget of all runs that name this directory, such as the trials of a sweep. Each run keeps a
    small record there, which is computed from its ledger. The record of a killed run is brought up to its ledger by the
    other runs, so the sum over the records is that of the ledgers.

    Args:
        kwh: Limit of the energy of the devices in kWh, as in ``energy/kwh``; None for no limit.
        gco2e: Limit of the emissions in gCO2e, after PUE; requires a ``grid``.
        cost: Limit of the electricity cost, after PUE; requires a ``price``.
        directory: Directory that several runs share, on a file system that all of them can write; None for the budget
            of this run. The first run writes the limits into it. Without limits here, those of the directory apply.
        warn_at: Fraction of a limit at which to warn, once.
        on_exceeded: ``"stop"`` ends the training after the current batch, with a validation, as ``EarlyStopping`` does,
            and the script continues after ``fit``; ``"pause"`` saves the exact training state and exits until the same
            command is started with a higher limit; ``"throttle"`` sets the power level with the least energy per step
            and continues.
        price: Electricity price per kWh: a number, or the path of a CSV file; see ``docs/cost.md``.
        check_every: Time between two checks, and so the time in which all running trials may exceed the limit.
        throttle: Power levels for ``on_exceeded="throttle"``; see ``CarbonScheduler``, whose throttle is used if it has
            one.
        max_slowdown: Longest step at a measured level, relative to full power.
        grid: Carbon intensity; see ``EmissionsTracker``.
        meter: See ``EmissionsTracker``.
        zone: Grid zone, for a ``grid`` that does not name one.
        clock: Clock of the run; the system clock by default.

    Raises:
        ValueError: If an argument is out of its range, or there is neither a limit nor a directory.
        TypeError: If an argument is of a wrong type.

    Examples:
        ```python
        from lightning_green import EnergyBudget
        Trainer(callbacks=[EnergyBudget(kwh=2.0)])  # of this run
        Trainer(callbacks=[EnergyBudget(kwh=40.0, directory="/shared/sweep-7")])  # of all trials
        ```

    """

    wants_exact = True

    def __init__(
        self,
        kwh: float | None = None,
        gco2e: float | None = None,
        cost: float | None = None,
        directory: str | Path | None = None,
        warn_at: float = 0.8,
        on_exceeded: OnExceeded = "stop",
        price: float | str | None = None,
        check_every: str | timedelta = "15s",
        throttle: ThrottleLike = "auto",
        max_slowdown: float = 1.15,
        grid: GridLike = None,
        meter: Meter | str | float | None = "auto",
        zone: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_options(grid, zone, meter)
        super().__init__(RunOptions(grid=grid, zone=zone, meter=meter, clock=clock))
        limits = Limits(kwh, gco2e, cost)
        self._arguments = check_budget_arguments(limits, directory, warn_at, on_exceeded, price, check_every)
        self.throttle, self.max_slowdown = throttle, max_slowdown
        throttle_controller(self)  # raises if an argument is wrong
        self._check: BudgetCheck | None = None
        self._throttle: SchedulerThrottle | None = None
        self._reset()

    def _reset(self) -> None:
        self._timer = StepTimer()
        self._check, self._throttle = None, None
        self._stops = self._throttles = self._level_due = False

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_check": None, "_throttle": None}

    @property
    def status(self) -> BudgetStatus | None:
        """How much of the budget was used at the last check, on rank 0; None before the first fit."""
        return None if self._check is None else self._check.status

    @override
    def settings(self) -> dict[str, Any]:
        own = self._arguments
        names = ("directory", "warn_at", "on_exceeded", "check_every")
        price = None if own.prices is None else str(own.prices)
        return {**own.limits.to_json(), **{name: getattr(own, name) for name in names}, "price": price}

    # -- hooks --------------------------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        fit = self._fit if stage == "fit" else None
        if fit is not None:
            self._reset()
            if fit.makes_decisions and trainer.global_rank == 0:
                self._check = self._arguments.make_check(fit)
        super().setup(trainer, pl_module, stage)
        if fit is None or fit.closed or not fit.makes_decisions:
            return
        if self._check is not None:
            fit.ending.undo.append(self._check.stop)
            fit.actions.insert(0, self._at_boundary)  # before a scheduler, which may hold or exit
            fit.hold_ends.append(self._ends_hold)
        elif fit.boundaries is not None and fit.boundaries.follower is not None:
            fit.boundaries.follower.on_budget[self._number(fit)] = self._act

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._check is not None and self._fit is not None and self._fit.session.announced:
            self._check.start()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        fit = self._fit
        if fit is None or not fit.makes_decisions:
            return
        self._timer.batch(fit.clock.monotonic())
        if self._throttle is not None and self._throttle.on_batch_end():
            self._level_due = True
        if fit.boundaries is None and not self._stops:
            self._act_without_boundaries(trainer)
        if self._stops:
            trainer.should_stop = True
            fit.ending.why_finished = "a budget is used"

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._check is not None and self._fit is not None and self._fit.session.announced and not self._fit.closed:
            self._check.record_use()
        super().on_train_end(trainer, pl_module)

    @override
    def startup_lines(self, trainer: pl.Trainer) -> dict[str, str]:
        lines = super().startup_lines(trainer)
        if self._check is not None and self._fit is not None:
            number = self._number(self._fit)
            status, then = self._check.status, f"then {self._action(self._fit)}"
            where = "of this run" if status.directory is None else f"of the runs in {status.directory}"
            lines["Budget" if not number else f"Budget {number + 1}"] = f"{status.limits} {where}; {then}"
        return lines

    def _number(self, fit: Fit) -> int:
        """Return the number of this budget among those of the Trainer, which is the same on all ranks."""
        return [member for member in fit.trainer.callbacks if isinstance(member, EnergyBudget)].index(self)  # type: ignore[attr-defined]

    # -- actions ------------------------------------------------------------------------------------------------------

    def _action(self, fit: Fit) -> str:
        """Return what happens when the budget is used, for the start-up block."""
        if self._arguments.on_exceeded == "stop" or (fit.boundaries is not None and fit.can_save):
            return self._arguments.on_exceeded
        if self._arguments.on_exceeded == "throttle":
            return "throttle" if fit.boundaries is not None else f"nothing, because {fit.why_not_exact}"
        return "stop, because the training state is not saved, so there is no pause"

    def _ends_hold(self) -> bool:
        """Return whether a pause in process has to end, because it uses energy and the budget has none."""
        if self._check is None or self._arguments.on_exceeded == "throttle":
            return False
        self._check.check_if_due()
        return self._check.status.is_used

    def _at_boundary(self, point: Point) -> None:
        """Act at a boundary if the budget is used, on rank 0."""
        fit, check = self._fit, self._check
        assert fit is not None
        assert check is not None
        check.check_if_due()
        if self._level_due and self._throttle is not None:
            self._level_due = False
            self._throttle.apply(None)
        if self._stops or self._throttles or not check.status.is_used:
            return
        if self._arguments.on_exceeded == "pause":
            if point == "batch" and fit.state is not None and fit.can_save and fit.state.exits_at_epochs_only():
                return  # the end of the epoch acts
            self._pause(point, fit, check)
        self._announce(fit, check)
        fit.ranks.send(Command.BUDGET, self._number(fit))
        self._act()

    def _pause(self, point: Point, fit: Fit, check: BudgetCheck) -> None:
        """Exit until the limit is raised; returns only if the state cannot be saved."""
        reason, remedy = f"A budget is used: {check.status}.", self._remedy(check.status)
        message = None
        if who_restarts() is None:
            message = f"Lightning Green, step {fit.trainer.global_step}: paused. {reason} {remedy} "
            message += continue_paused(fit.session.path)
        check.record("pause", reason)
        fit.ending.exit_until(point, Paused(reason=reason, remedy=remedy), message)
        check.warn("The training stops instead of being paused, because its state cannot be saved.")

    def _announce(self, fit: Fit, check: BudgetCheck) -> None:
        """Record and print what happens, on rank 0."""
        action = "throttle" if self._arguments.on_exceeded == "throttle" else "stop"
        reason = f"A budget is used: {check.status}."
        check.record(action, reason)
        does = "The training stops after the next batch."
        if action == "throttle":
            does = "The training continues at the power level of least energy per step."
        rank_zero_info(f"Lightning Green, step {fit.trainer.global_step}: {reason} {does}")

    def _act_without_boundaries(self, trainer: pl.Trainer) -> None:
        """Stop on all ranks at the same batch, in a training whose loops are not watched."""
        used = self._check is not None and self._check.status.is_used
        if trainer.world_size > 1:
            used = trainer.strategy.reduce_boolean_decision(used, all=False)  # only rank 0 has a check
        if not used or self._arguments.on_exceeded == "throttle":
            return
        if self._check is not None:
            reason = f"A budget is used: {self._check.status}."
            self._check.record("stop", reason)
            rank_zero_info(f"Lightning Green, step {trainer.global_step}: {reason} The training stops.")
        self._stops = True

    def _act(self) -> None:
        """Stop after the next batch or throttle, on each rank at the same boundary."""
        if self._arguments.on_exceeded != "throttle":
            self._stops = True
            return
        self._throttles = True
        assert self._fit is not None
        schedulers = (one for one in self._fit.members if isinstance(one, CarbonScheduler))
        shared = next((one._throttle for one in schedulers if one._throttle is not None), None)
        if shared is not None:
            shared.use_least_energy(self._check is not None)
        elif (control := throttle_controller(self)) is not None:
            self._throttle = SchedulerThrottle(control, self._fit, self._timer)
            self._level_due = True

    @staticmethod
    def _remedy(status: BudgetStatus) -> str:
        """Return how to raise the limits that are reached."""
        limits = status.limits.to_json()
        reached = [name for name, value in status.used.items() if value >= limits[name]]
        if status.directory is None:
            names = " and ".join(f"`{name}`" for name in reached)
            return f"Raise {names} of EnergyBudget, and start the same command again."
        options = " ".join(f"--{name} LIMIT" for name in reached)
        return f"Raise it (lightning-green budget {status.directory} {options}), and start the same command again."
