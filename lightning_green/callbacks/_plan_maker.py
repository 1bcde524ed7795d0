"""Plans of a running fit: the job from measured times and costs, the plan, and its record in the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_green.callbacks._return_time import ReturnTime
from lightning_green.callbacks._scheduler_arguments import PlanArguments
from lightning_green.grid.recorded import spec_for_record
from lightning_green.ledger.events import Decision, Paused, Sample, Warned
from lightning_green.ledger.intensity_series import series_record
from lightning_green.ledger.power import full_power, measured_hold_power, measured_resume_hours
from lightning_green.planning import FORECAST_ARCHIVE_FILE, ForecastArchive, Job, Level, Plan, live_plan
from lightning_green.planning.job import HOLD_POWER, State
from lightning_green.run.continuing import is_interactive
from lightning_green.run.fit import Fit
from lightning_green.run.remaining_work import StepTimer, remaining_work
from lightning_green.run.verification import Verification
from lightning_green.supervisor.launchers import kept_allocation, who_restarts
from lightning_green.utilities.durations import format_duration

DEFAULT_RESUME_HOURS = 0.1
RETRY_SECONDS = 60.0
FORECAST_SECONDS = 3300.0
"""Least time between two forecasts in the ledger: less than an hour, so that an hourly plan has its own."""


_LONGEST = timedelta(days=36525)
"""Longest time to a deadline: 100 years. A later one makes no difference to a plan, and may be no date."""


class PlanMaker:
    """Makes the plans of one fit and records each as a decision.

    Args:
        arguments: Validated arguments of the scheduler.
        fit: The fit.
        levels: Returns the available throttle levels, full power first.
        verification: The check of the script that an exit waits for, or None.

    Attributes:
        plan: The last plan, or None.
        next_decision: Time of the next decision in seconds since the epoch.
        energy_only: Whether no plan is possible for a lasting reason and delay has no price, so the level of lowest
            energy is the best one.
        why_no_exit: Why the run cannot exit, or None.
        timer: Step times of this fit.
        return_time: Duration of the starts of this fit.

    """

    def __init__(
        self,
        arguments: PlanArguments,
        fit: Fit,
        levels: Callable[[], tuple[Level, ...]],
        verification: Verification | None = None,
    ) -> None:
        self._arguments, self._fit, self._levels, self._verification = arguments, fit, levels, verification
        self.plan: Plan | None = None
        self._last_job: Job | None = None
        self._forecast_recorded_at: float | None = None
        self._job_is_recorded = False
        self.next_decision = 0.0
        self.energy_only = False
        self.why_no_exit = "the run directory cannot be written" if fit.session.folder is None else None
        self.timer = StepTimer(*self._earlier_step_times())
        self.return_time = ReturnTime(fit.session)
        self._forecasts = ForecastArchive(
            None if fit.session.folder is None else fit.session.folder.path / FORECAST_ARCHIVE_FILE
        )
        self._check_deadline()

    # -- plans -------------------------------------------------------------------------------------------------------

    def _why_no_plan(self) -> str | None:
        if self._fit.session.grid is None:
            return 'the scheduler has no `grid`; set one, for example grid="typical:DE"'
        if self.deadline() is None and not self._arguments.delay_price:
            return 'there is no deadline; set one, for example deadline="36h"'
        return None

    def make(self, state: State) -> Plan | None:
        """Return a plan for the remaining work and record it; None if there is nothing to decide.

        Args:
            state: Current state of the run.

        """
        fit, run = self._fit, self._fit.session
        now, deadline, price = run.clock.now(), self.deadline(), self._delay_price()
        grid, reason = run.grid, self._why_no_plan()
        if grid is None or reason is not None:
            self.next_decision = math.inf
            self.energy_only = not self._arguments.delay_price
            run.record(Decision(reason=f"Run without waiting: {reason}.", action="run"))
            return None
        left = remaining_work(fit.trainer, self.timer)
        if left.seconds is None or (deadline is None and price is None):
            knows_speed = self.timer.seconds_per_batch is not None
            self.next_decision = run.clock.time() + (RETRY_SECONDS if knows_speed else 0.0)
            if left.seconds is None and knows_speed:
                self.energy_only = not self._arguments.delay_price
                self._warn_once(f"Continuing without waiting: {left.why}.")
            return None
        if left.seconds <= 0.0:  # after the last step
            self.next_decision = math.inf
            return None
        job = self._last_job = self._job(left.seconds, state, deadline, price or 0.0)
        answer = live_plan(grid, job, self._forecasts, now)
        if self._forecasts.problem is not None:
            self._warn_once(self._forecasts.problem)
        changed = self.plan is None or self.plan.slots[0].action != answer.slots[0].action
        self.plan = fit.plan = answer
        least = None if left.least is None else left.least / 3600.0
        self._record(answer, job, least)
        if changed:
            rank_zero_info(f"Lightning Green, step {fit.trainer.global_step}: {answer.reason}")
            if least is not None:
                rank_zero_info(
                    f"This plan is for all {job.work_hours:.1f} h up to {left.why}. EarlyStopping may end the training "
                    f"after {least:.1f} h; the saving would then differ."
                )
        if answer.late_hours > 0:
            self._warn_once(f"The work does not fit before the deadline: it will be {answer.late_hours:.1f} h late.")
        if math.isfinite(answer.gco2e_per_kw) and price is not None:
            self.next_decision = answer.slots[0].end.timestamp()
        else:  # the intensity or the power is not known yet
            self.next_decision = run.clock.time() + RETRY_SECONDS
        return answer

    def _record(self, answer: Plan, job: Job, least: float | None) -> None:
        first, run = answer.slots[0], self._fit.session
        is_new, self._job_is_recorded = not self._job_is_recorded, True
        run.record(
            Decision(
                reason=answer.reason,
                action=first.action,
                until=answer.until,
                level=None if first.level is None else str(first.level),
                work_hours=job.work_hours,
                least_work_hours=least,
                saving=_finite(answer.saving),
                saving_std=_finite(answer.saving_std),
                expected_end=answer.end,
                late_hours=answer.late_hours,
                deadline=job.deadline,
                forecast=self._forecast_to_record(answer),
                job=job.to_json(run.clock.time()) if is_new else None,
                grid=spec_for_record(run.grid) if is_new else None,
            )
        )

    def _forecast_to_record(self, answer: Plan) -> dict[str, Any] | None:
        """Return the intensities of a plan, once an hour: a run of weeks has a ledger of a few megabytes."""
        now = self._fit.clock.monotonic()
        if self._forecast_recorded_at is not None and now - self._forecast_recorded_at < FORECAST_SECONDS:
            return None
        self._forecast_recorded_at = now
        return series_record(answer.slots[0].start, *answer.expected_intensities())

    def _job(self, seconds: float, state: State, deadline: datetime | None, price: float) -> Job:
        return Job(
            work_hours=seconds / 3600.0,
            deadline=deadline,
            hold_power=self.hold_power(),
            resume_cost=self._resume_hours(),
            pauses=frozenset(self.pauses()[0]),
            state=state,
            min_saving=self._arguments.min_saving,
            levels=self._levels(),
            delay_price=price,
            return_time=self._return_hours(),
            out_power=self.hold_power() if kept_allocation() else 0.0,
            full_kw=None if (watts := self._full_watts()) is None else watts / 1000.0 * self._fit.session.recorder.pue,
            prices=self._arguments.price,
            carbon_price=self._arguments.carbon_price,
        )

    def paused_event(self, plan: Plan) -> Paused:
        """Return the event of an exit, from which the supervisor plans again.

        Args:
            plan: Plan whose first action is an exit.

        """
        assert self._last_job is not None
        run = self._fit.session
        return Paused(
            reason=plan.reason,
            until=plan.until,
            job=self._last_job.to_json(run.clock.time()),
            grid=spec_for_record(run.grid),
            seconds_per_batch=self.timer.seconds_per_batch,
            seconds_per_validation=self.timer.seconds_per_validation,
            saving=_finite(plan.saving),
            startup_seconds=self.return_time.startup_seconds(self.timer.seconds_per_batch),
            idle_watts=self._idle_watts(),
            allocation=kept_allocation(),
        )

    # -- the job -------------------------------------------------------------------------------------------------------

    def pauses(self) -> tuple[set[str], str]:
        """Return the possible pauses, and why the others are not possible."""
        pauses, why = self._pauses_if_exact()
        if "exit" in pauses and self._verification is not None and self._verification.why_no_exit is not None:
            return {"hold"}, f"no exit: {self._verification.why_no_exit}"
        return pauses, why

    def can_exit(self) -> bool:
        """Return whether a plan may contain an exit, once the script is known to resume exactly."""
        waits = self.deadline() is not None or self._arguments.delay_price > 0.0
        return self._fit.session.grid is not None and waits and "exit" in self._pauses_if_exact()[0]

    def _pauses_if_exact(self) -> tuple[set[str], str]:
        on_pause = self._arguments.on_pause
        if self._fit.why_not_exact is not None:
            return set(), self._fit.why_not_exact
        if on_pause == "hold":
            return {"hold"}, "as requested"
        state = self._fit.state
        if state is not None and state.limits.why_not_saved is not None:
            return set(), state.limits.why_not_saved
        if not self._fit.can_save:
            return {"hold"}, f"no exit: {self.why_no_exit or 'Trainer(enable_checkpointing=False)'}"
        if self.why_no_exit is not None:
            return {"hold"}, f"no exit: {self.why_no_exit}"
        restarter = who_restarts()
        if on_pause == "exit":
            return {"exit"}, f"{restarter} restarts it" if restarter else "as requested; restart it by hand"
        if restarter is None:
            use = "use a script and" if is_interactive() else "use"
            return {"hold"}, f"no exit: nothing would restart the run; {use} `lightning-green run -- ...`"
        return {"hold", "exit"}, f"{restarter} restarts it"

    def hold_power(self) -> float:
        """Return the fraction of full power drawn while held: given, measured or assumed."""
        if self._arguments.hold_power != "measured":
            return self._arguments.hold_power
        measured = measured_hold_power(self._fit.session.totals)
        return HOLD_POWER if measured is None else measured

    def hold_power_differs(self) -> bool:
        """Return whether the measured power of a hold differs by more than a tenth from that of the last plan."""
        planned = None if self._last_job is None else self._last_job.hold_power
        return planned is not None and abs(self.hold_power() - planned) > max(0.01, 0.1 * planned)

    def _idle_watts(self) -> float | None:
        """Return the power in W of devices that stay allocated after an exit, of all nodes; None if it is unknown."""
        watts = full_power(self._fit.session.totals)
        return None if watts is None else round(watts * self.hold_power(), 3)

    def _resume_hours(self) -> float:
        if self._arguments.resume_cost != "measured":
            return self._arguments.resume_cost
        measured = measured_resume_hours(self._fit.session.totals)
        return DEFAULT_RESUME_HOURS if measured is None else measured

    def _return_hours(self) -> float:
        if self._arguments.return_time != "measured":
            return self._arguments.return_time
        return self.return_time.hours(self.timer.seconds_per_batch)

    def _delay_price(self) -> float | None:
        """Return the price of an hour of delay in gCO2e per kW of full power; None while that power is unknown."""
        if not self._arguments.delay_price:
            return 0.0
        run, watts = self._fit.session, self._full_watts()
        if watts is None:
            if not run.meter.read():
                self._warn_once(
                    "`delay_price` is not used: without a meter the power of the job is unknown. Set `meter`, for "
                    "example to the watts that the job draws."
                )
            return None
        return self._arguments.delay_price / (watts / 1000.0 * run.recorder.pue)

    def _full_watts(self) -> float | None:
        """Return the full power of the job in W, or None while it is unknown."""
        run = self._fit.session
        watts = full_power(run.totals)
        if watts is None:
            run.meter.sample()
            run.record(Sample())  # updates the measured power
            watts = full_power(run.totals)
        return watts

    def deadline(self) -> datetime | None:
        """Return the deadline in UTC, or None."""
        deadline, run = self._arguments.deadline, self._fit.session
        if not isinstance(deadline, timedelta):
            return deadline
        first = run.record_on_disk.get("first_start")
        began = run.clock.time() if run.began is None else run.began
        start = datetime.fromisoformat(first) if first else datetime.fromtimestamp(began, timezone.utc)
        return start + min(deadline, _LONGEST)

    def _check_deadline(self) -> None:
        """Raise if the deadline of a new run lies in the past. A continued run that is late continues."""
        deadline, run = self._arguments.deadline, self._fit.session
        if self._fit.trainer.global_rank > 0:  # only rank 0 plans
            return
        if isinstance(deadline, datetime) and not run.continuing and deadline <= run.clock.now():
            raise ValueError(
                f"`deadline` should lie in the future, got {deadline.isoformat()} and it is "
                f'{run.clock.now().isoformat(timespec="seconds")}. Give a later time, or a duration such as "36h".'
            )

    def _earlier_step_times(self) -> tuple[float | None, float | None]:
        for event in reversed(self._fit.session.history):
            if isinstance(event, Paused) and event.seconds_per_batch is not None:
                return event.seconds_per_batch, event.seconds_per_validation
        return None, None

    # -- messages ----------------------------------------------------------------------------------------------------

    def startup_lines(self) -> dict[str, str]:
        """Return the lines of the startup block about the deadline, the pauses and the first decision."""
        run, deadline = self._fit.session, self.deadline()
        priced = self._arguments.delay_price
        lines = {"Deadline": 'none, so the run does not wait; set one, for example deadline="36h"'}
        if deadline is not None:
            left = format_duration((deadline - run.clock.now()).total_seconds())
            lines["Deadline"] = f"{deadline:%Y-%m-%d %H:%M} UTC, in {left}"
        elif priced:
            lines["Deadline"] = f"none; an hour of delay costs {priced:g} gCO2e"
        pauses, why = self.pauses()
        kept = kept_allocation() if "exit" in pauses else None
        why += f"; the {kept} keeps its devices, which draw idle power after an exit" if kept else ""
        lines["Pauses"] = (" and ".join(sorted(pauses)) or "none") + (f" ({why})" if why else "")
        if self._arguments.price is not None:
            lines["Deadline"] += (
                f"; electricity: {self._arguments.price}, carbon {self._arguments.carbon_price:g} per kg"
            )
        if run.grid is None:
            lines["Next"] = 'continue: without `grid` the run does not wait; set one, for example grid="typical:DE"'
        elif deadline is None and not priced:
            lines["Next"] = "continue"
        elif self.timer.seconds_per_batch is None:
            lines["Next"] = "a decision once the step time is measured"
        else:
            lines["Next"] = "a decision after the first batch"
        end = run.grid.covers_until() if run.grid is not None else None
        if end is not None and deadline is not None and end < deadline:
            rank_zero_warn(
                f"The intensities of {run.grid.source if run.grid else 'the grid'} end at {end:%Y-%m-%d %H:%M} UTC, "
                "before the deadline. Later hours are filled from recent days. Use a longer trace."
            )
        return lines

    def _warn_once(self, message: str) -> None:
        """Warn and record the warning, the first time only."""
        if message not in self._fit.messages:
            self._fit.messages.append(message)
            self._fit.session.record(Warned(reason=message))
            rank_zero_warn(message)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
