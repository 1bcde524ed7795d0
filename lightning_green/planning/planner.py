"""The planner: a job and a forecast in, a plan out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning import reason as say
from lightning_green.planning.dynamic_programming import EPSILON, HELD, OUT, RUNNING, Costs, Tail, solve
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.job import Job, Level
from lightning_green.planning.plan import Action, Plan, Slot
from lightning_green.planning.schedule import Path, deviation, follow, run_now
from lightning_green.planning.slots import Slots, make_slots
from lightning_green.utilities.validation import check_aware

Array = NDArray[np.float64]

LONGEST_HOURS = 14 * 24.0
"""How far a plan looks; work beyond is priced at the mean of the cheapest hours that it needs."""
CLOCKS_DIFFER = timedelta(minutes=5)
WAIT_WITHOUT_DEADLINE = 96.0
EXIT_CAUTION = 0.25
"""An exit that was wrong costs a restart, a hold that was wrong all of its energy: an exit needs less of a margin."""
STATES = {"running": RUNNING, "throttled": RUNNING, "held": HELD, "out": OUT}
WORK: tuple[Action, ...] = ("run", "throttle")
PAUSE: tuple[Action, ...] = ("hold", "exit")


def plan(job: Job, forecast: Forecast | None, now: datetime) -> Plan:
    """Return what to do from ``now`` on so that ``job`` emits least and meets its deadline.

    Call it again with the work that is left when a slot ends, when a new forecast arrives and when the speed turns out
    to be another one; only the first action of a plan is meant to be acted on.

    Args:
        job: The work left, what pausing costs, and the deadline.
        forecast: What is known about the carbon intensity; None or empty for nothing, and the plan is to run now.
        now: The time, aware.

    Raises:
        ValueError: If ``now`` is naive, or the forecast was issued in the future.

    Example::

        >>> from lightning_green.planning import Forecast, Job, plan
        >>> start = datetime(2024, 5, 1, tzinfo=timezone.utc)
        >>> forecast = Forecast([start + timedelta(hours=h) for h in range(6)], [500, 500, 100, 100, 500, 500])
        >>> answer = plan(Job(work_hours=2, deadline=start + timedelta(hours=6)), forecast, start)
        >>> [slot.action for slot in answer.slots]
        ['exit', 'exit', 'run', 'run']

    """
    now = check_aware("now", now).astimezone(timezone.utc)
    if forecast is not None and forecast.issued_at is not None and forecast.issued_at > now + CLOCKS_DIFFER:
        raise ValueError(
            f"`forecast` should not be issued in the future, got {forecast.issued_at.isoformat()} at {now.isoformat()}."
        )
    levels, notes = useful_levels(job.levels)
    to_deadline = None if job.deadline is None else (job.deadline - now).total_seconds() / 3600
    horizon = _horizon(job, levels, to_deadline)
    slots = None if forecast is None else make_slots(forecast, now.timestamp(), horizon)
    late = 0.0 if to_deadline is None else max(0.0, job.work_hours - to_deadline)
    if slots is None or forecast is None:
        return _blind(job, now, late, notes)
    if slots.filled_hours > 1e-6:
        source = "recent days" if len(forecast.history_times) else "the forecast's own last day"
        notes += (f"The forecast leaves {say.hours(slots.filled_hours)} open, filled from {source}.",)
    task = _Task(job, levels, slots, now, to_deadline, horizon)
    why = _why_no_waiting(job, to_deadline, late)
    if why is not None and job.budget is None:
        return task.answer(task.baseline, why, late=late, notes=notes)
    if why is None:
        path, why = task.best()
    else:
        path = task.baseline
    if job.budget is not None and task.emissions(path) > job.budget:
        return task.within_budget(job.budget, path, late, notes)
    return task.answer(path, why, late=late, notes=notes)


def useful_levels(levels: tuple[Level, ...]) -> tuple[tuple[Level, ...], tuple[str, ...]]:
    """Return the levels that are not dominated, and a note on each that is.

    A level is dominated by another one that is at least as fast and draws no more.
    """
    kept, notes = [levels[0]], []
    for level in dict.fromkeys(levels[1:]):
        by = [other for other in levels if other != level and other.power <= level.power and other.speed >= level.speed]
        if level == levels[0]:
            continue
        if by:
            notes.append(f"Throttle level {level} is dropped: {by[0]} is at least as fast and draws no more.")
        else:
            kept.append(level)
    return tuple(kept), tuple(notes)


def _horizon(job: Job, levels: tuple[Level, ...], to_deadline: float | None) -> float:
    """Return how many hours ahead the plan has to look."""
    slowest = job.work_hours / min(level.speed for level in levels)
    if to_deadline is None:
        waiting = WAIT_WITHOUT_DEADLINE if job.delay_price else 0.0
        wanted = (slowest if job.delay_price or job.budget is not None else job.work_hours) + waiting
    else:
        wanted = max(job.work_hours, to_deadline - job.safety * job.work_hours)
    return max(min(wanted, LONGEST_HOURS), min(job.work_hours, 1.0))


def _why_no_waiting(job: Job, to_deadline: float | None, late: float) -> str | None:
    """Return why nothing but running now comes into question; None where there is something to plan."""
    if to_deadline is None:
        return None if job.delay_price else "Run now: without a deadline there is no waiting."
    work = say.hours(job.work_hours)
    if late > EPSILON:
        return f"Run now: {work} of work do not fit before the deadline; it will be {say.hours(late)} late."
    if to_deadline <= job.work_hours * (1 + job.safety) + EPSILON:
        spare = say.hours(max(0.0, to_deadline - job.work_hours))
        return f"Run now: {work} of work are left and {spare} to spare, which is kept as the safety margin."
    return None


def _blind(job: Job, now: datetime, late: float, notes: tuple[str, ...]) -> Plan:
    """Return the plan for a job of which no intensity is known."""
    why = "Run now: nothing is known about the carbon intensity."
    if late > EPSILON:
        why = f"{why[:-1]}, and the work will be {say.hours(late)} late."
    end = now + timedelta(hours=job.work_hours)
    slots = (Slot(now, end, "run", job.levels[0]),)
    return Plan(slots, math.nan, math.nan, 0.0, None, end, why, late_hours=late, notes=notes)


@dataclass(frozen=True)
class _Task:
    """One call of :func:`plan`: the job, its levels, the slots and the paths through them."""

    job: Job
    levels: tuple[Level, ...]
    slots: Slots
    now: datetime
    to_deadline: float | None
    horizon: float

    @property
    def state(self) -> int:
        return STATES[self.job.state]

    @cached_property
    def costs(self) -> Costs:
        job = self.job
        waiting = self.to_deadline is not None or job.delay_price > 0
        return Costs(
            levels=tuple(Level(level.power - job.idle_power, level.speed) for level in self.levels),
            hold_power=max(0.0, job.hold_power - job.idle_power) if waiting and "hold" in job.pauses else None,
            may_exit=waiting and "exit" in job.pauses,
            exit=job.exit_cost,
            back_from_exit=job.resume_cost,
            hold=job.hold_cost,
            back_from_hold=job.hold_resume_cost,
            hour=job.delay_price,
            stop_rate=job.stop_rate,
            taken=job.embodied_rate,
        )

    @cached_property
    def tail(self) -> Tail:
        """What can be done after the last slot, and at what price: that of the cheapest hours that it takes."""
        if self.to_deadline is None:
            spare = math.inf
        else:
            spare = max(0.0, self.to_deadline - self.job.safety * self.job.work_hours - self.horizon)
        share = self.job.work_hours / (self.horizon + spare) if math.isfinite(spare) else 1.0
        ordered = np.sort(self.slots.values)
        cheapest = ordered[: max(1, math.ceil(min(1.0, share) * len(ordered)))]
        power = self.costs.levels[0].power
        hour = float(cheapest.mean()) * power + self.job.embodied_rate + self.job.delay_price
        return Tail(hour, min(spare, self.job.work_hours))

    @cached_property
    def baseline(self) -> Path:
        return run_now(self.slots.hours, self.costs, self.state, self.job.work_hours)

    def emissions(self, path: Path) -> float:
        """Return the expected emissions of ``path`` in gCO2e per kW of full power."""
        rate, beyond = self.job.embodied_rate, 0.0
        if path.undone:
            beyond = path.undone * (float(self.slots.values.mean()) * self.costs.levels[0].power + rate)
        return float(path.energy @ self.slots.values) + rate * float(path.taken.sum()) + beyond

    def price(self, path: Path) -> float:
        """Return the emissions and the price of the time of ``path``: what the plan is to make least."""
        return self.emissions(path) + self.job.delay_price * (sum(path.hours) + path.undone)

    def spread(self, path: Path, other: Path) -> float | None:
        """Return the standard deviation of what two paths differ by, in gCO2e per kW of full power."""
        if self.slots.spread is None:
            return None
        return deviation(path.energy - other.energy, self.slots.spread, self.slots.edges)

    def best(self) -> tuple[Path, str | None]:
        """Return the path of least cost whose pauses are worth it, and why where it is not the cheapest of all."""
        job, slots, costs, baseline = self.job, self.slots, self.costs, self.baseline
        values = solve(slots.hours, slots.values, job.work_hours, costs, self.tail)
        path = follow(values, slots.hours, slots.values, costs, self.state)
        if self.price(path) > self.price(baseline):
            path = baseline
        if self.state != RUNNING or not path.paused():
            return path, None
        if job.min_saving:
            still = replace(costs, hold_power=None, may_exit=False)
            table = solve(slots.hours, slots.values, job.work_hours, still, self.tail)
            steady = follow(table, slots.hours, slots.values, still, self.state)
            saved = (self.price(steady) - self.price(path)) / self.price(baseline) if self.price(baseline) else 0.0
            if saved < job.min_saving:
                return steady, (
                    f"Go on: the best plan with a pause would save {saved:.1%} of running now, less than the "
                    f"{job.min_saving:.1%} asked for."
                )
        if job.caution and path.actions[0] in PAUSE:
            on = follow(values, slots.hours, slots.values, costs, self.state, first=WORK)
            gain, noise = self.price(on) - self.price(path), self.spread(on, path)
            asked = job.caution * (1.0 if path.actions[0] == "hold" else EXIT_CAUTION)
            if noise is not None and gain < asked * noise:
                scale = max(self.emissions(baseline), EPSILON)
                return on, (
                    f"Go on: a pause now would save {gain / scale:.1%} of running now, which is within the "
                    f"uncertainty of the forecast ({noise / scale:.1%})."
                )
        return path, None

    def within_budget(self, budget: float, path: Path, late: float, notes: tuple[str, ...]) -> Plan:
        """Return the plan of most work that emits no more than ``budget``; slower first, then less of it."""
        thrifty = self
        if self.to_deadline is None or self.job.delay_price:
            thrifty = replace(self, job=replace(self.job, delay_price=0.0, min_saving=0.0, caution=0.0))
            path = thrifty._least()
            if self.emissions(path) <= budget:
                price = self._price_within(budget)
                chosen = replace(self, job=replace(self.job, delay_price=price))._least()
                why = f"Slow down: running now would emit more than the budget of {budget:.0f} gCO2e per kW."
                return self.answer(chosen, why, late=late, notes=notes)
        low, high = 0.0, self.job.work_hours
        for _ in range(30):
            middle = (low + high) / 2
            part = replace(thrifty, job=replace(thrifty.job, work_hours=middle))
            low, high = (middle, high) if part.emissions(part._least()) <= budget else (low, middle)
        done = max(low, 1e-3)
        part = replace(thrifty, job=replace(thrifty.job, work_hours=done))
        chosen = part._least()
        least = self.emissions(path)
        why = (
            f"The budget of {budget:.0f} gCO2e per kW is enough for {say.hours(done)} of "
            f"{say.hours(self.job.work_hours)} of work; the least that all of it can emit is {least:.0f}."
        )
        return self.answer(chosen, why, late=late, notes=notes, undone=self.job.work_hours - done)

    def _least(self) -> Path:
        """Return the path of least cost, whatever its uncertainty."""
        slots, costs = self.slots, self.costs
        if self.to_deadline is not None and self.to_deadline <= self.job.work_hours * (1 + self.job.safety) + EPSILON:
            return self.baseline
        values = solve(slots.hours, slots.values, self.job.work_hours, costs, self.tail)
        return follow(values, slots.hours, slots.values, costs, self.state)

    def _price_within(self, budget: float) -> float:
        """Return the highest price on time, up to the job's own, that keeps within ``budget``."""
        low, high = 0.0, self.job.delay_price or float(self.slots.values.max()) * 10
        for _ in range(20):
            middle = (low + high) / 2
            part = replace(self, job=replace(self.job, delay_price=middle))
            low, high = (middle, high) if part.emissions(part._least()) <= budget else (low, middle)
        return low

    def answer(self, path: Path, why: str | None, *, late: float, notes: tuple[str, ...], undone: float = 0.0) -> Plan:
        """Return ``path`` as a plan."""
        now, edges, prices = self.now, self.slots.edges.tolist(), self.slots.values.tolist()
        energy, taken, rate = path.energy.tolist(), path.taken.tolist(), self.job.embodied_rate
        made, start = [], now
        for index, (action, level, hours) in enumerate(zip(path.actions, path.levels, path.hours, strict=True)):
            stop = now + timedelta(hours=edges[index] + hours)
            point = self.levels[level] if level >= 0 else None
            price = prices[index]
            made.append(Slot(start, stop, action, point, price, energy[index] * price + rate * taken[index]))
            start = stop
        if path.undone:
            start = start + timedelta(hours=path.undone)
        baseline = self.baseline
        emitted, reference = self.emissions(path), self.emissions(baseline)
        saving = 1 - emitted / reference if reference > 0 else 0.0
        noise = self.spread(path, baseline)
        std = None if noise is None else (noise / reference if reference > 0 else 0.0)
        plan_slots = tuple(made)
        if why is None and plan_slots[0].action in PAUSE:
            slack = None if self.to_deadline is None else self.to_deadline - (start - now).total_seconds() / 3600
            why = say.pause(plan_slots, now, saving, std, start, slack)
        if why is None:
            why = say.go(plan_slots, now, saving, std)
        return Plan(plan_slots, emitted, reference, saving, std, start, why, late, undone, notes)
