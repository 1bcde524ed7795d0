"""Wait for clean electricity where waiting pays."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from lightning_green.callbacks._green import GreenCallback
from lightning_green.callbacks.emissions_tracker import check_options
from lightning_green.durations import format_duration, parse_duration
from lightning_green.energy.meter import Meter
from lightning_green.grid.build import GridLike
from lightning_green.planning import Forecast, Job, Plan, correct, plan, remember
from lightning_green.planning.job import Level, State
from lightning_green.runtime import _lightning, loggers
from lightning_green.runtime.accounting import measured_hold_power, measured_resume_hours
from lightning_green.runtime.clock import Clock
from lightning_green.runtime.exact import Point
from lightning_green.runtime.launchers import who_restarts
from lightning_green.runtime.progress import StepTimer, WorkLeft, work_left
from lightning_green.runtime.random_states import synchronize_cuda
from lightning_green.runtime.run import RunOptions
from lightning_green.throttle.control import ThrottleLike
from lightning_green.throttle.scheduler import SchedulerThrottle, throttle_control

Pause = Literal["auto", "hold", "exit"]

DEFAULT_HOLD_POWER = 0.25
DEFAULT_RESUME_HOURS = 0.1
HOLD_TICK_SECONDS = 1.0
HOLD_LOG_SECONDS = 60.0
SIMULATED_HOLD_TICK_SECONDS = 900.0


class CarbonScheduler(GreenCallback):
    r"""Run, hold or leave a training by the carbon intensity of its grid, so that it emits least by its deadline.

    Between two batches it asks the planner what to do with the work that is left: run on, hold in process (the device
    stays allocated and draws ``hold_power``), or save the exact training state and exit, so that the device is free, to
    be started again by ``lightning-green run``. The planner knows what holding and restarting cost; "do not pause" is
    an answer. A run that was paused ends with the weights of the run that never was.

    Without a deadline there is no waiting, and without a grid nothing to wait for; both are said at start. Nothing
    about carbon stops a training: where the intensity or the work left is not known, it runs now.

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
            :class:`~lightning_green.throttle.actuator.Actuator` or several; None for never. Levels are measured in the
            first steps; see ``docs/throttling.md``.
        max_slowdown: How many times longer a step may take at a throttle level.
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
        max_slowdown: float = 1.1,
        meter: Meter | str | float | None = "auto",
        zone: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_options(grid, zone, meter)
        super().__init__(RunOptions(grid=grid, zone=zone, meter=meter, clock=clock))
        self.deadline = _check_deadline(deadline)
        if on_pause not in ("auto", "hold", "exit"):
            raise ValueError(f'`on_pause` should be "auto", "hold" or "exit", got {on_pause!r}.')
        self.on_pause = on_pause
        self.hold_power = _check_fraction("hold_power", hold_power, upper=1.0)
        self.resume_cost = _check_fraction("resume_cost", resume_cost, upper=math.inf)
        self.min_saving = float(_check_fraction("min_saving", min_saving, upper=1.0))
        if isinstance(every_n_steps, bool) or not isinstance(every_n_steps, int) or every_n_steps < 1:
            raise ValueError(f"`every_n_steps` should be an integer of 1 or more, got {every_n_steps!r}.")
        self.every_n_steps = every_n_steps
        self.checkpoint_every = (
            None if checkpoint_every is None else parse_duration(checkpoint_every, "checkpoint_every")
        )
        self.throttle, self.max_slowdown = throttle, max_slowdown
        throttle_control(self)  # raises for a wrong argument
        self._throttle: SchedulerThrottle | None = None
        self.plan: Plan | None = None
        self._issues: list[Forecast] = []
        self._timer = StepTimer()
        self._batches = 0
        self._next_decision = 0.0
        self._why_not: str | None = None

    # -- hooks --------------------------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._fit is not None:
            if self._fit.run.folder is None:
                self._why_not = "the run folder cannot be written"
            self._check_deadline_ahead()
            self._fit.checkpoint_every = self.checkpoint_every
            self._fit.on_boundary.append(self._at_boundary)
            self._timer = StepTimer(*self._measured_before())
            self._next_decision, self._batches = 0.0, 0
            control = throttle_control(self)
            self._throttle = None if control is None else SchedulerThrottle(control, self._fit, self._timer)
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._fit is not None:
            self._batches += 1
            if self._throttle is not None and self._throttle.batch_ended():
                self._next_decision = 0.0  # the levels are known: decide with them
            self._timer.batch(self._fit.run.clock.monotonic())

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
        if self._fit is not None and not trainer.sanity_checking:
            self._timer.validation_began(self._fit.run.clock.monotonic())

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self._fit is not None and not trainer.sanity_checking:
            self._timer.validation_ended(self._fit.run.clock.monotonic())

    @override
    def startup_lines(self, trainer: pl.Trainer) -> dict[str, str]:
        assert self._fit is not None
        run, deadline = self._fit.run, self._deadline_at()
        lines = super().startup_lines(trainer)
        if deadline is None:
            lines["Deadline"] = 'none, so there is no waiting; give one, for example deadline="36h"'
        else:
            left = format_duration((deadline - run.clock.now()).total_seconds())
            lines["Deadline"] = f"{deadline:%Y-%m-%d %H:%M} UTC, in {left}"
        pauses, why = self._pauses(trainer)
        lines["Pauses"] = (" and ".join(sorted(pauses)) or "none") + (f" ({why})" if why else "")
        if self._throttle is not None:
            lines["Pauses"] += f"; throttling: {self._throttle.describe()}"
        if run.grid is None:
            lines["Next"] = (
                'run on: without `grid` there is nothing to wait for; give one, for example grid="typical:DE"'
            )
        elif deadline is None:
            lines["Next"] = "run on"
        elif self._timer.seconds_per_batch is None:
            lines["Next"] = "a decision as soon as the time of a step is known"
        else:
            lines["Next"] = "a decision after the first batch"
        end = run.grid.covers_until() if run.grid is not None else None
        if end is not None and deadline is not None and end < deadline:
            rank_zero_warn(
                f"The intensities of {run.grid.source if run.grid else 'the grid'} end at {end:%Y-%m-%d %H:%M} UTC, "
                "before the deadline; what comes after is filled in from the recent days. Give a longer trace."
            )
        return lines

    # -- decisions ----------------------------------------------------------------------------------------------------

    def _at_boundary(self, point: Point) -> None:
        if self._batches % self.every_n_steps:
            return
        assert self._fit is not None
        if self._fit.run.clock.time() >= self._next_decision:
            self._decide(point)

    def _decide(self, point: Point) -> None:
        """Plan, and act on the first action of the plan."""
        fit = self._fit
        assert fit is not None
        decided = self._make_plan("running")
        if self._throttle is not None:
            self._throttle.follow(decided)
        if decided is None:
            return
        action = decided.slots[0].action
        if action == "hold":
            self._hold(point, decided)
        elif action == "exit":
            self._exit(point, decided)
        elif math.isfinite(decided.gco2e_per_kw):
            self._next_decision = decided.slots[0].end.timestamp()
        else:  # nothing is known yet, or for a while
            self._next_decision = fit.run.clock.time() + 60.0

    def _make_plan(self, state: State) -> Plan | None:
        """Return a plan for the work that is left, on record; None where there is nothing to decide."""
        fit = self._fit
        assert fit is not None
        run, deadline = fit.run, self._deadline_at()
        now = run.clock.now()
        if run.grid is None or deadline is None:
            self._next_decision = math.inf
            return None
        left = work_left(fit.trainer, self._timer)
        if left.seconds is None:
            self._next_decision = run.clock.time() + (60.0 if self._timer.seconds_per_batch is not None else 0.0)
            if self._timer.seconds_per_batch is not None:
                self._say_once(f"Running on without waiting: {left.why}.")
            return None
        if left.seconds <= 0.0:  # the last step has been done
            self._next_decision = math.inf
            return None
        job = self._job(left, state, deadline)
        forecast = run.grid.forecast(now, max(deadline - now, timedelta(hours=1)))
        answer = plan(job, None if forecast is None else correct(forecast, self._issues, now), now)
        self._issues = remember(self._issues, forecast)
        changed = self.plan is None or self.plan.slots[0].action != answer.slots[0].action
        self.plan = answer
        run.record(
            "decision",
            reason=answer.reason,
            action=answer.slots[0].action,
            until=answer.until.isoformat(),
            work_hours=job.work_hours,
            saving=_finite(answer.saving),
            saving_std=_finite(answer.saving_std),
            expected_end=answer.end.isoformat(),
            late_hours=answer.late_hours,
            deadline=deadline.isoformat(),
        )
        if changed:
            rank_zero_info(f"Lightning Green, step {fit.trainer.global_step}: {answer.reason}")
        if answer.late_hours > 0:
            self._say_once(f"The work does not fit before the deadline: it will be {answer.late_hours:.1f} h late.")
        return answer

    def _job(self, left: WorkLeft, state: State, deadline: datetime) -> Job:
        assert self._fit is not None
        assert left.seconds is not None
        pauses, _ = self._pauses(self._fit.trainer)
        return Job(
            work_hours=left.seconds / 3600.0,
            deadline=deadline,
            hold_power=self._hold_power(),
            resume_cost=self._resume_hours(),
            pauses=frozenset(pauses),
            state=state,
            min_saving=self.min_saving,
            levels=(Level(1.0, 1.0),) if self._throttle is None else self._throttle.levels(),
        )

    def _exit(self, point: Point, decided: Plan) -> None:
        fit = self._fit
        assert fit is not None
        until = decided.until
        if who_restarts() is None:
            script = " ".join(_lightning.command())
            rank_zero_info(
                f"Lightning Green: leaving until {until:%Y-%m-%d %H:%M} UTC. To continue, start it again: {script}"
            )
        fit.leave(point, until, decided.reason, **self.describe_job(decided))
        self._why_not = "the training state cannot be saved"  # `leave` came back: run on, and do not try each step
        self._next_decision = fit.run.clock.time() + 3600.0

    def describe_job(self, decided: Plan) -> dict[str, Any]:
        """Return what the supervisor needs to plan again while the run is out."""
        assert self._fit is not None
        run, deadline = self._fit.run, self._deadline_at()
        left = work_left(self._fit.trainer, self._timer)
        return {
            "job": {
                "work_hours": (left.seconds or 0.0) / 3600.0,
                "deadline": None if deadline is None else deadline.isoformat(),
                "hold_power": self._hold_power(),
                "resume_cost": self._resume_hours(),
                "pauses": sorted(self._pauses(self._fit.trainer)[0]),
                "min_saving": self.min_saving,
            },
            "grid": None if run.grid is None else run.grid.spec(),
            "seconds_per_batch": self._timer.seconds_per_batch,
            "seconds_per_validation": self._timer.seconds_per_validation,
            "saving": _finite(decided.saving),
        }

    def _hold(self, point: Point, decided: Plan) -> None:
        """Wait in process until the plan says to go on, or a signal says to stop."""
        fit = self._fit
        assert fit is not None
        run, trainer = fit.run, fit.trainer
        real, held_from = time.monotonic(), run.clock.monotonic()
        synchronize_cuda()
        run.meter.set_load(self._hold_power())
        run.enter(state="held", phase="held", reason=decided.reason, until=decided.until.isoformat())
        self._log(trainer)
        tick = SIMULATED_HOLD_TICK_SECONDS if run.clock.is_simulated else HOLD_TICK_SECONDS
        next_log = run.clock.time() + HOLD_LOG_SECONDS
        next_plan = decided.slots[0].end.timestamp()
        while not fit.stop_requested():
            now = run.clock.time()
            if now >= next_plan:
                again = self._make_plan("held")
                if again is None or again.slots[0].action not in ("hold", "exit"):
                    break
                if again.slots[0].action == "exit":
                    self._exit(point, again)
                    break
                next_plan = again.slots[0].end.timestamp()
            if now >= next_log:
                run.sample_if_due()
                self._log(trainer)
                next_log = now + HOLD_LOG_SECONDS
            run.clock.sleep(max(0.0, min(tick, next_plan - now)))
        run.meter.set_load(1.0)
        self._timer.leave_out(run.clock.monotonic() - held_from)
        fit.held_for(time.monotonic() - real)
        run.enter(state="running", phase="training", reason="going on")
        self._log(trainer)
        self._next_decision = run.clock.time() + 1.0 if self.plan is None else self.plan.slots[0].end.timestamp()

    def _log(self, trainer: pl.Trainer) -> None:
        assert self._fit is not None
        loggers.log_to_all(trainer, self._fit.run.metrics(), _lightning.logging_step(trainer))

    # -- what the plan is made from -----------------------------------------------------------------------------------

    def _pauses(self, trainer: pl.Trainer) -> tuple[set[str], str]:
        """Return which pauses are possible, and why not the others."""
        assert self._fit is not None
        if self._fit.why_not_exact is not None:
            return set(), self._fit.why_not_exact
        if self.on_pause == "hold":
            return {"hold"}, "as asked for"
        if not self._fit.can_save():
            why = self._why_not or "Trainer(enable_checkpointing=False)"
            return {"hold"}, f"no exit: {why}"
        if self._why_not is not None:
            return {"hold"}, f"no exit: {self._why_not}"
        restarter = who_restarts()
        if self.on_pause == "exit":
            return {"exit"}, f"{restarter} starts it again" if restarter else "as asked for; start it again by hand"
        if restarter is None:
            return {"hold"}, "no exit: nothing would start the run again; use `lightning-green run -- ...`"
        return {"hold", "exit"}, f"{restarter} starts it again"

    def _hold_power(self) -> float:
        if self.hold_power != "measured":
            return float(self.hold_power)
        assert self._fit is not None
        measured = measured_hold_power(self._fit.run.totals)
        return DEFAULT_HOLD_POWER if measured is None else measured

    def _resume_hours(self) -> float:
        if self.resume_cost != "measured":
            return float(self.resume_cost)
        assert self._fit is not None
        measured = measured_resume_hours(self._fit.run.totals)
        return DEFAULT_RESUME_HOURS if measured is None else measured

    def _deadline_at(self) -> datetime | None:
        assert self._fit is not None
        if not isinstance(self.deadline, timedelta):
            return self.deadline
        run = self._fit.run
        first = run.record_on_disk.get("first_start")
        began = run.clock.time() if run.began is None else run.began
        start = datetime.fromisoformat(first) if first else datetime.fromtimestamp(began, timezone.utc)
        return start + self.deadline

    def _check_deadline_ahead(self) -> None:
        """Refuse a deadline that lies in the past, where a run begins; one that is late already just runs on."""
        assert self._fit is not None
        run = self._fit.run
        if isinstance(self.deadline, datetime) and not run.continuing and self.deadline <= run.clock.now():
            raise ValueError(
                f"`deadline` should lie in the future, got {self.deadline.isoformat()} and it is "
                f'{run.clock.now().isoformat(timespec="seconds")}. Give a later time, or a duration such as "36h".'
            )

    def _measured_before(self) -> tuple[float | None, float | None]:
        assert self._fit is not None
        for record in reversed(self._fit.run.past):
            if record.get("seconds_per_batch") is not None and record.get("fit") == self._fit.number:
                return float(record["seconds_per_batch"]), record.get("seconds_per_validation")
        return None, None

    def _say_once(self, line: str) -> None:
        assert self._fit is not None
        if self._why_not != line and line not in self._fit.told:
            self._fit.told.append(line)
            self._fit.run.record("warning", reason=line)
            rank_zero_warn(line)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _check_fraction(name: str, value: float | Literal["measured"], upper: float) -> float | Literal["measured"]:
    if value == "measured" and name != "min_saving":
        return "measured"
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 0.0 <= float(value) <= upper:
        wanted = f"a number in [0, {upper:g}]" if upper < math.inf else "a number of hours, 0 or more"
        also = "" if name == "min_saving" else ' or "measured"'
        raise ValueError(f"`{name}` should be {wanted}{also}, got {value!r}.")
    return float(value)


def _check_deadline(value: str | timedelta | datetime | None) -> timedelta | datetime | None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(
                f"`deadline` should have a time zone, got {value!r}; for example datetime.now(timezone.utc)."
            )
        return value.astimezone(timezone.utc)
    if value is None:
        return None
    duration = parse_duration(value, "deadline")
    if not duration:
        raise ValueError(f"`deadline` should be longer than nothing, got {value!r}.")
    return duration
