"""What the scheduler asks the planner in the middle of a training, and what it is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_green.callbacks._scheduler_arguments import PlanArguments
from lightning_green.ledger.events import Decision, Paused, Sample, Warned
from lightning_green.ledger.totals import full_power, measured_hold_power, measured_resume_hours
from lightning_green.planning import FORECAST_ARCHIVE_FILE, ForecastArchive, Job, Level, Plan, live_plan
from lightning_green.planning.job import State
from lightning_green.run.fit import Fit
from lightning_green.run.remaining_work import StepTimer, work_left
from lightning_green.supervisor.launchers import who_restarts
from lightning_green.utilities.durations import format_duration

DEFAULT_HOLD_POWER = 0.25
DEFAULT_RESUME_HOURS = 0.1
ASK_AGAIN_SECONDS = 60.0


class PlanMaker:
    """Makes the plans of one fit, and puts each on record.

    Args:
        arguments: What the user says about waiting.
        fit: The fit.
        levels: Returns the throttle levels that there are, full power first.

    Attributes:
        plan: The last plan, or None.
        next_decision: When to decide again, in seconds since the epoch.
        energy_alone: Whether there is no plan for a reason that lasts, and no price on time, so that the level of least
            energy is the best one.
        why_no_exit: Why leaving is not possible, where it is not.
        timer: Times of the steps of this fit.

    """

    def __init__(self, arguments: PlanArguments, fit: Fit, levels: Callable[[], tuple[Level, ...]]) -> None:
        self._asked, self._fit, self._levels = arguments, fit, levels
        self.plan: Plan | None = None
        self._last_job: Job | None = None
        self.next_decision = 0.0
        self.energy_alone = False
        self.why_no_exit = "the run folder cannot be written" if fit.session.folder is None else None
        self.timer = StepTimer(*self._measured_before())
        self._forecasts = ForecastArchive(
            None if fit.session.folder is None else fit.session.folder.path / FORECAST_ARCHIVE_FILE
        )
        self._check_deadline_ahead()

    # -- a plan -------------------------------------------------------------------------------------------------------

    def make(self, state: State) -> Plan | None:
        """Return a plan for the work that is left, on record; None where there is nothing to decide."""
        fit, run = self._fit, self._fit.session
        now, deadline, price = run.clock.now(), self.deadline(), self._delay_price()
        if run.grid is None or (deadline is None and not self._asked.delay_price):
            self.next_decision = math.inf
            self.energy_alone = not self._asked.delay_price
            return None
        left = work_left(fit.trainer, self.timer)
        if left.seconds is None or (deadline is None and price is None):
            knows_speed = self.timer.seconds_per_batch is not None
            self.next_decision = run.clock.time() + (ASK_AGAIN_SECONDS if knows_speed else 0.0)
            if left.seconds is None and knows_speed:
                self.energy_alone = not self._asked.delay_price
                self.say_once(f"Running on without waiting: {left.why}.")
            return None
        if left.seconds <= 0.0:  # the last step has been done
            self.next_decision = math.inf
            return None
        job = self._last_job = self._job(left.seconds, state, deadline, price or 0.0)
        answer = live_plan(run.grid, job, self._forecasts, now)
        if self._forecasts.problem is not None:
            self.say_once(self._forecasts.problem)
        changed = self.plan is None or self.plan.slots[0].action != answer.slots[0].action
        self.plan = answer
        self._record(answer, job)
        if changed:
            rank_zero_info(f"Lightning Green, step {fit.trainer.global_step}: {answer.reason}")
        if answer.late_hours > 0:
            self.say_once(f"The work does not fit before the deadline: it will be {answer.late_hours:.1f} h late.")
        if math.isfinite(answer.gco2e_per_kw) and price is not None:
            self.next_decision = answer.slots[0].end.timestamp()
        else:  # nothing is known yet, or for a while
            self.next_decision = run.clock.time() + ASK_AGAIN_SECONDS
        return answer

    def _record(self, answer: Plan, job: Job) -> None:
        first = answer.slots[0]
        self._fit.session.record(
            Decision(
                reason=answer.reason,
                action=first.action,
                until=answer.until,
                level=None if first.level is None else str(first.level),
                work_hours=job.work_hours,
                saving=_finite(answer.saving),
                saving_std=_finite(answer.saving_std),
                expected_end=answer.end,
                late_hours=answer.late_hours,
                deadline=job.deadline,
            )
        )

    def _job(self, seconds: float, state: State, deadline: datetime | None, price: float) -> Job:
        return Job(
            work_hours=seconds / 3600.0,
            deadline=deadline,
            hold_power=self.hold_power(),
            resume_cost=self._resume_hours(),
            pauses=frozenset(self.pauses()[0]),
            state=state,
            min_saving=self._asked.min_saving,
            levels=self._levels(),
            delay_price=price,
        )

    def describe(self, decided: Plan) -> dict[str, Any]:
        """Return what the supervisor needs to plan again while the run is out."""
        assert self._last_job is not None
        run = self._fit.session
        return {
            "job": self._last_job.to_json(),
            "grid": None if run.grid is None else run.grid.spec(),
            "seconds_per_batch": self.timer.seconds_per_batch,
            "seconds_per_validation": self.timer.seconds_per_validation,
            "saving": _finite(decided.saving),
        }

    # -- what it is made from -----------------------------------------------------------------------------------------

    def pauses(self) -> tuple[set[str], str]:
        """Return which pauses are possible, and why not the others."""
        on_pause = self._asked.on_pause
        if self._fit.why_not_exact is not None:
            return set(), self._fit.why_not_exact
        if on_pause == "hold":
            return {"hold"}, "as asked for"
        state = self._fit.state
        if state is not None and state.why_not_saved is not None:
            return set(), state.why_not_saved
        if not self._fit.can_save:
            return {"hold"}, f"no exit: {self.why_no_exit or 'Trainer(enable_checkpointing=False)'}"
        if self.why_no_exit is not None:
            return {"hold"}, f"no exit: {self.why_no_exit}"
        restarter = who_restarts()
        if on_pause == "exit":
            return {"exit"}, f"{restarter} starts it again" if restarter else "as asked for; start it again by hand"
        if restarter is None:
            return {"hold"}, "no exit: nothing would start the run again; use `lightning-green run -- ...`"
        return {"hold", "exit"}, f"{restarter} starts it again"

    def hold_power(self) -> float:
        """Return the fraction of full power that is drawn while held: stated, measured or assumed."""
        if self._asked.hold_power != "measured":
            return self._asked.hold_power
        measured = measured_hold_power(self._fit.session.totals)
        return DEFAULT_HOLD_POWER if measured is None else measured

    def _resume_hours(self) -> float:
        if self._asked.resume_cost != "measured":
            return self._asked.resume_cost
        measured = measured_resume_hours(self._fit.session.totals)
        return DEFAULT_RESUME_HOURS if measured is None else measured

    def _delay_price(self) -> float | None:
        """Return the price of an hour in gCO2e per kW of full power; None where that power is not known yet."""
        if not self._asked.delay_price:
            return 0.0
        run = self._fit.session
        watts = full_power(run.totals)
        if watts is None:
            run.meter.sample()
            run.record(Sample())  # the plan should know what has been drawn so far
            watts = full_power(run.totals)
        if watts is None:
            if not run.meter.read():
                self.say_once(
                    "`delay_price` is not used: without a meter nothing is known about the power that it is weighed "
                    "against. Give `meter`, for example the watts that the job draws."
                )
            return None
        return self._asked.delay_price / (watts / 1000.0 * run.recorder.pue)

    def deadline(self) -> datetime | None:
        """Return when the training has to be done, in UTC."""
        asked, run = self._asked.deadline, self._fit.session
        if not isinstance(asked, timedelta):
            return asked
        first = run.record_on_disk.get("first_start")
        began = run.clock.time() if run.began is None else run.began
        start = datetime.fromisoformat(first) if first else datetime.fromtimestamp(began, timezone.utc)
        return start + asked

    def _check_deadline_ahead(self) -> None:
        """Refuse a deadline that lies in the past, where a run begins; one that is late already just runs on."""
        asked, run = self._asked.deadline, self._fit.session
        if self._fit.trainer.global_rank > 0:  # rank 0 alone knows the time
            return
        if isinstance(asked, datetime) and not run.continuing and asked <= run.clock.now():
            raise ValueError(
                f"`deadline` should lie in the future, got {asked.isoformat()} and it is "
                f'{run.clock.now().isoformat(timespec="seconds")}. Give a later time, or a duration such as "36h".'
            )

    def _measured_before(self) -> tuple[float | None, float | None]:
        for event in reversed(self._fit.session.history):
            if isinstance(event, Paused) and event.seconds_per_batch is not None:
                return event.seconds_per_batch, event.seconds_per_validation
        return None, None

    # -- what is said -------------------------------------------------------------------------------------------------

    def startup_lines(self) -> dict[str, str]:
        """Return what to say at start about the deadline, the pauses and the first decision."""
        run, deadline = self._fit.session, self.deadline()
        priced = self._asked.delay_price
        lines = {"Deadline": 'none, so there is no waiting; give one, for example deadline="36h"'}
        if deadline is not None:
            left = format_duration((deadline - run.clock.now()).total_seconds())
            lines["Deadline"] = f"{deadline:%Y-%m-%d %H:%M} UTC, in {left}"
        elif priced:
            lines["Deadline"] = f"none; an hour of delay is priced at {priced:g} gCO2e"
        pauses, why = self.pauses()
        lines["Pauses"] = (" and ".join(sorted(pauses)) or "none") + (f" ({why})" if why else "")
        if run.grid is None:
            lines["Next"] = (
                'run on: without `grid` there is nothing to wait for; give one, for example grid="typical:DE"'
            )
        elif deadline is None and not priced:
            lines["Next"] = "run on"
        elif self.timer.seconds_per_batch is None:
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

    def say_once(self, line: str) -> None:
        """Warn of something, and put it on record, the first time."""
        if line not in self._fit.messages:
            self._fit.messages.append(line)
            self._fit.session.record(Warned(reason=line))
            rank_zero_warn(line)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
