"""The planner: a job and a forecast in, a plan out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.dynamic_programming import EPSILON, EXITED, HELD, RUNNING, Costs, solve
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.job import Job, Level
from lightning_green.planning.plans import Action, Plan, Slot
from lightning_green.planning.reason import CostChange, Saving, format_hours, pause_reason, run_reason
from lightning_green.planning.schedule import Schedule, cheapest_schedule, run_now_schedule, saving_deviation
from lightning_green.planning.slots import HOUR, Slots, make_slots, split_slots
from lightning_green.utilities.validation import check_aware

Array = NDArray[np.float64]

MAX_HORIZON_HOURS = 365 * 24.0
"""Longest horizon of a plan. A later deadline gives the same plan. A job with more work runs now."""
CLOCK_TOLERANCE = timedelta(minutes=5)
MAX_WAIT_WITHOUT_DEADLINE = 96.0
PRICE_HOURS = 96.0
"""Hours ahead in which a slot ends where the price changes. Later slots have the mean price of their time."""
EXIT_CAUTION = 0.25
"""Margin of an exit relative to that of a hold: a wrong exit costs one restart, a wrong hold all of its energy."""
STATES = {"running": RUNNING, "throttled": RUNNING, "held": HELD, "out": EXITED}
WORK: tuple[Action, ...] = ("run", "throttle")
PAUSE: tuple[Action, ...] = ("hold", "exit")


def plan(job: Job, forecast: Forecast | None, now: datetime) -> Plan:
    """Return the actions that complete ``job`` before its deadline with the lowest expected emissions.

    For a job with prices, these are the actions with the lowest expected cost of electricity and carbon.

    Only the first action of a plan is meant to be carried out. Plan again with the remaining work when a slot ends,
    when a new forecast arrives, and when the measured speed changes.

    Args:
        job: Remaining work, deadline and costs.
        forecast: Carbon intensity of the coming hours. None or empty: the plan is to run now.
        now: Current time, aware.

    Raises:
        ValueError: If ``now`` is naive, or the forecast was issued in the future.

    Examples:
        >>> from lightning_green.planning import Forecast, Job, plan
        >>> start = datetime(2024, 5, 1, tzinfo=timezone.utc)
        >>> forecast = Forecast([start + timedelta(hours=h) for h in range(6)], [500, 500, 100, 100, 500, 500])
        >>> answer = plan(Job(work_hours=2, deadline=start + timedelta(hours=6)), forecast, start)
        >>> [slot.action for slot in answer.slots]
        ['exit', 'exit', 'run', 'run']

    """
    now = check_aware("now", now).astimezone(timezone.utc)
    if forecast is not None and forecast.issued_at is not None and forecast.issued_at > now + CLOCK_TOLERANCE:
        raise ValueError(
            f"`forecast` should not be issued in the future, got {forecast.issued_at.isoformat()} at {now.isoformat()}."
        )
    if job.state != "out" or not job.return_time:
        return _plan_work(job, forecast, now)
    ready = now + timedelta(hours=job.return_time)
    return _with_return(_plan_work(job, forecast, ready), job, forecast, now, ready)


def _plan_work(job: Job, forecast: Forecast | None, now: datetime) -> Plan:
    """Return the plan from ``now``, the earliest time of work. The other arguments are those of `plan`."""
    levels, notes = drop_dominated(job.levels)
    to_deadline = None if job.deadline is None else (job.deadline - now).total_seconds() / 3600
    horizon = _horizon(job, levels, to_deadline)
    slots = None if forecast is None else _make_slots(job, forecast, now, horizon)
    late = 0.0 if to_deadline is None else max(0.0, job.work_hours - to_deadline)
    if slots is None or forecast is None:
        return _plan_without_intensity(job, now, late, notes)
    if slots.filled_hours > 1e-6:
        source = "recent days" if len(forecast.history_times) else "its own last day"
        notes += (f"The forecast does not cover {format_hours(slots.filled_hours)}, which are filled from {source}.",)
    problem = _Problem(job, levels, slots, now, to_deadline, forecast.kind.startswith("marginal"))
    notes += problem.price_notes()
    reason = _run_now_reason(job, to_deadline, late)
    if reason is not None:
        return problem.plan(problem.baseline, reason, late, notes)
    schedule, reason = problem.best()
    if job.work_hours <= slots.fine_hours < horizon:
        # A shorter horizon has finer slots, so its plan may be better.
        fine_slots = _make_slots(job, forecast, now, slots.fine_hours)
        assert fine_slots is not None
        fine = replace(problem, slots=fine_slots)
        fine_schedule, fine_reason = fine.best()
        if fine.objective(fine_schedule) < problem.objective(schedule):
            problem, schedule, reason = fine, fine_schedule, fine_reason
    return problem.plan(schedule, reason, late, notes)


def _make_slots(job: Job, forecast: Forecast, now: datetime, horizon: float) -> Slots | None:
    """Return the slots of a plan; those of the next days end where the intensity or the price changes."""
    start = now.timestamp()
    slots = make_slots(forecast, start, horizon)
    if slots is None or job.prices is None:
        return slots
    return split_slots(slots, (job.prices.changes(start, start + min(horizon, PRICE_HOURS) * HOUR) - start) / HOUR)


def _with_return(answer: Plan, job: Job, forecast: Forecast | None, now: datetime, ready: datetime) -> Plan:
    """Return a plan that starts when an exited job is ``ready``, with the time to return before it.

    Args:
        answer: The plan from ``ready`` on.
        job: The job.
        forecast: Carbon intensity of the coming hours, or None.
        now: Time at which the job may be started again.
        ready: Earliest time of work.

    """
    slots = None if forecast is None else make_slots(forecast, now.timestamp(), job.return_time)
    if slots is None:
        return replace(answer, slots=(Slot(now, ready, "exit"), *answer.slots))
    intensity = float(slots.hours @ slots.values) / job.return_time
    emitted = job.out_power * job.return_time * intensity
    planned, reference = answer.gco2e_per_kw + emitted, answer.run_now_gco2e_per_kw + emitted
    scale = answer.run_now_gco2e_per_kw / reference if reference > 0 else 1.0
    price, paid = None, 0.0
    if job.prices is not None:
        price = float(job.prices.outlook(*_span(now, ready))[0][0])
        paid = job.out_power * job.return_time * price
    return replace(
        answer,
        slots=(Slot(now, ready, "exit", None, intensity, emitted, price), *answer.slots),
        cost_per_kw=None if answer.cost_per_kw is None else answer.cost_per_kw + paid,
        run_now_cost_per_kw=None if answer.run_now_cost_per_kw is None else answer.run_now_cost_per_kw + paid,
        gco2e_per_kw=planned,
        run_now_gco2e_per_kw=reference,
        saving=answer.saving * scale,
        saving_std=None if answer.saving_std is None else answer.saving_std * scale,
    )


def _span(start: datetime, end: datetime) -> tuple[Array, Array]:
    """Return one interval in POSIX seconds."""
    return np.array([start.timestamp()]), np.array([end.timestamp()])


def drop_dominated(levels: tuple[Level, ...]) -> tuple[tuple[Level, ...], tuple[str, ...]]:
    """Return the levels that are not dominated, and a note for each level that is.

    A level is dominated if another one is at least as fast and draws no more power.
    """
    kept, notes = [levels[0]], []
    for level in dict.fromkeys(levels[1:]):
        better = [other for other in levels if other.power <= level.power and other.speed >= level.speed]
        better = [other for other in better if other != level]
        if level == levels[0]:
            continue
        if better:
            notes.append(f"Throttle level {level} is dropped: {better[0]} is at least as fast and draws no more.")
        else:
            kept.append(level)
    return tuple(kept), tuple(notes)


def _horizon(job: Job, levels: tuple[Level, ...], to_deadline: float | None) -> float:
    """Return the horizon of the plan in hours, in which all of the work must be done."""
    slowest = job.work_hours / min(level.speed for level in levels)
    if to_deadline is None:
        waiting = MAX_WAIT_WITHOUT_DEADLINE if job.delay_price else 0.0
        wanted = (slowest if job.delay_price else job.work_hours) + waiting
    else:
        wanted = max(job.work_hours, to_deadline - job.safety * job.work_hours)
    return max(min(wanted, MAX_HORIZON_HOURS), min(job.work_hours, 1.0))


def _run_now_reason(job: Job, to_deadline: float | None, late: float) -> str | None:
    """Return why running now is the only choice; None if there is a choice."""
    if to_deadline is None:
        return None if job.delay_price else "Run now: a job without a deadline does not wait."
    work = format_hours(job.work_hours)
    if late > EPSILON:
        return f"Run now: {work} of work do not fit before the deadline. The job will be {format_hours(late)} late."
    if job.work_hours > MAX_HORIZON_HOURS:
        return f"Run now: {work} of work are longer than the longest plan, {format_hours(MAX_HORIZON_HOURS)}."
    if to_deadline <= job.work_hours * (1 + job.safety) + EPSILON:
        slack = format_hours(max(0.0, to_deadline - job.work_hours))
        return f"Run now: {work} of work remain and the slack of {slack} is within the safety margin."
    return None


def _plan_without_intensity(job: Job, now: datetime, late: float, notes: tuple[str, ...]) -> Plan:
    """Return the plan for an unknown carbon intensity: run now."""
    reason = "Run now: nothing is known about the carbon intensity."
    if late > EPSILON:
        reason += f" The job will be {format_hours(late)} late."
    end = now + timedelta(hours=job.work_hours)
    slots = (Slot(now, end, "run", job.levels[0]),)
    return Plan(slots, math.nan, math.nan, 0.0, None, end, reason, late_hours=late, notes=notes)


@dataclass(frozen=True)
class _Problem:
    """The problem of one call of `plan`.

    Args:
        job: The job.
        levels: Its levels that are not dominated.
        slots: Slots from now to the horizon.
        now: Time of planning.
        to_deadline: Hours until the deadline; None without one.
        marginal: Whether the signal is a marginal one.

    """

    job: Job
    levels: tuple[Level, ...]
    slots: Slots
    now: datetime
    to_deadline: float | None
    marginal: bool

    @property
    def state(self) -> int:
        return STATES[self.job.state]

    @cached_property
    def costs(self) -> Costs:
        job = self.job
        return Costs(
            levels=self.levels,
            hold_power=job.hold_power if "hold" in job.pauses else None,
            may_exit="exit" in job.pauses,
            exit=job.exit_cost,
            back_from_exit=job.resume_cost,
            hold=job.hold_cost,
            back_from_hold=job.hold_resume_cost,
            hour=self.delay_price,
            out=job.out_power,
            return_hours=job.return_time,
        )

    @property
    def delay_price(self) -> float:
        """Price of an hour of delay per kW of full power, in the unit of ``weights``."""
        return self.job.delay_price * self.scale

    @property
    def scale(self) -> float:
        """Weight of a gram of CO2e: 1, or its price in thousandths of the currency."""
        return 1.0 if self.job.prices is None else self.job.carbon_price

    @property
    def measure(self) -> str:
        """The minimized quantity in words."""
        return "emissions" if self.job.prices is None else "cost of electricity and carbon"

    @cached_property
    def prices(self) -> tuple[Array, Array] | None:
        """Mean price of each slot in money per kWh, and the fraction of the slot whose price is known."""
        if self.job.prices is None:
            return None
        edges = self.now.timestamp() + self.slots.edges * HOUR
        return self.job.prices.outlook(edges[:-1], edges[1:])

    @cached_property
    def weights(self) -> Array:
        """Minimized quantity per kWh in each slot: gCO2e, or cost of electricity and carbon in thousandths.

        It is not shifted to positive values if prices are negative: holds, restarts and throttle levels change the
        energy of a plan, so a constant for each kWh would change the best plan.
        """
        if self.prices is None:
            return self.slots.values
        weights: Array = 1000.0 * self.prices[0] + self.job.carbon_price * self.slots.values
        # A job without a deadline would hold for as long as the power market pays for it.
        return weights if self.job.deadline is not None else np.maximum(weights, 0.0)

    def price_notes(self) -> tuple[str, ...]:
        """Return a note if some prices are estimates."""
        if self.prices is None or (estimated := float(self.slots.hours @ (1.0 - self.prices[1]))) < 1e-6:
            return ()
        total = float(self.slots.edges[-1])
        return (
            f"Prices are known for {format_hours(total - estimated)} of {format_hours(total)}; the others are "
            "estimates from the same hours of recent days.",
        )

    @cached_property
    def baseline(self) -> Schedule:
        """The run-now schedule."""
        return run_now_schedule(self.slots.hours, self.costs, self.state, self.job.work_hours)

    @property
    def run_now_intensity(self) -> float:
        """Mean carbon intensity of the work under run-now, in gCO2e/kWh."""
        hours = np.array(self.baseline.hours)
        return float(hours @ self.slots.values[: len(hours)] / hours.sum())

    def emissions(self, schedule: Schedule) -> float:
        """Return the expected emissions of ``schedule`` in gCO2e per kW of full power."""
        after = schedule.undone * float(self.slots.values.mean()) if schedule.undone else 0.0
        return float(schedule.energy @ self.slots.values) + after

    def cost(self, schedule: Schedule) -> float | None:
        """Return the expected electricity cost of ``schedule`` in money per kW of full power; None without prices."""
        if self.prices is None:
            return None
        after = schedule.undone * float(self.prices[0].mean()) if schedule.undone else 0.0
        return float(schedule.energy @ self.prices[0]) + after

    def objective(self, schedule: Schedule) -> float:
        """Return the minimized quantity and the price of delay, in the unit of ``weights``."""
        found, cost = self.scale * self.emissions(schedule), self.cost(schedule)
        if cost is not None:
            found += 1000.0 * cost
        return found + self.delay_price * (sum(schedule.hours) + schedule.undone)

    def deviation(self, schedule: Schedule, other: Schedule) -> float | None:
        """Return the standard deviation of the difference in emissions, in gCO2e per kW of full power."""
        if self.slots.spread is None:
            return None
        return saving_deviation(schedule.energy - other.energy, self.slots.spread, self.slots.edges)

    def best(self) -> tuple[Schedule, str | None]:
        """Return the cheapest schedule whose pauses are worthwhile, and why it is not the cheapest of all."""
        job, hours, costs, baseline, weights = self.job, self.slots.hours, self.costs, self.baseline, self.weights
        values = solve(hours, weights, job.work_hours, costs)
        schedule = cheapest_schedule(values, hours, weights, costs, self.state)
        if self.objective(schedule) > self.objective(baseline):
            schedule = baseline
        if self.state != RUNNING or not schedule.has_pause():
            return schedule, None
        if job.min_saving:
            no_pause = replace(costs, hold_power=None, may_exit=False)
            table = solve(hours, weights, job.work_hours, no_pause)
            steady = cheapest_schedule(table, hours, weights, no_pause, self.state)
            reference = abs(self.objective(baseline))
            saved = (self.objective(steady) - self.objective(schedule)) / reference if reference else 0.0
            if saved < job.min_saving:
                return steady, (
                    f"Continue: the best plan with a pause would save {saved:.1%} of the run-now {self.measure}, "
                    f"less than the {job.min_saving:.1%} of `min_saving`."
                )
        if job.caution and schedule.actions[0] in PAUSE:
            work_first = cheapest_schedule(values, hours, weights, costs, self.state, first=WORK)
            gain, noise = self.objective(work_first) - self.objective(schedule), self.deviation(work_first, schedule)
            noise = None if noise is None else self.scale * noise
            caution = job.caution * (1.0 if schedule.actions[0] == "hold" else EXIT_CAUTION)
            if noise is not None and gain < caution * noise:
                scale = max(self.emissions(baseline) if self.prices is None else abs(self.objective(baseline)), EPSILON)
                return work_first, (
                    f"Continue: a pause now would save {gain / scale:.1%} of the run-now {self.measure}, which is "
                    f"within the uncertainty of the forecast ({noise / scale:.1%})."
                )
        return schedule, None

    def plan(self, schedule: Schedule, reason: str | None, late: float, notes: tuple[str, ...]) -> Plan:
        """Return ``schedule`` as a plan; the reason is derived from its actions if it is None."""
        slots = self._plan_slots(schedule)
        end = slots[-1].end if slots else self.now
        if schedule.undone:
            end = end + timedelta(hours=schedule.undone)
        emissions, reference = self.emissions(schedule), self.emissions(self.baseline)
        saving = 1 - emissions / reference if reference > 0 else 0.0
        noise = self.deviation(schedule, self.baseline)
        std = None if noise is None else (noise / reference if reference > 0 else 0.0)
        grams = None if self.job.full_kw is None else reference * self.job.full_kw
        cost, run_now_cost, change = self.cost(schedule), self.cost(self.baseline), None
        if cost is not None and run_now_cost is not None:
            change = CostChange(cost, run_now_cost, self.job.full_kw, bool(self.price_notes()))
        expected = Saving(saving, std, grams, self.marginal, change)
        if reason is None and slots[0].action in PAUSE:
            slack = None if self.to_deadline is None else self.to_deadline - (end - self.now).total_seconds() / 3600
            reason = pause_reason(slots, self.now, expected, self.run_now_intensity, end, slack)
        if reason is None:
            reason = run_reason(slots, self.now, expected, self.run_now_intensity)
        return Plan(slots, emissions, reference, saving, std, end, reason, late, notes, cost, run_now_cost)

    def _plan_slots(self, schedule: Schedule) -> tuple[Slot, ...]:
        """Return the slots of ``schedule`` with their times and emissions."""
        edges, intensities = self.slots.edges.tolist(), self.slots.values.tolist()
        energy, slots, start = schedule.energy.tolist(), [], self.now
        prices = None if self.prices is None else self.prices[0].tolist()
        for index, (action, level, hours) in enumerate(
            zip(schedule.actions, schedule.levels, schedule.hours, strict=True)
        ):
            end = self.now + timedelta(hours=edges[index] + hours)
            point = self.levels[level] if level >= 0 else None
            intensity = intensities[index]
            price = None if prices is None else prices[index]
            slots.append(Slot(start, end, action, point, intensity, energy[index] * intensity, price))
            start = end
        return tuple(slots)
