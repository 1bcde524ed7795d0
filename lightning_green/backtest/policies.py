"""Baseline policies from the literature, each a function of an observation.

A policy takes an `Observation` and returns the action of the hour that starts. It does not have to check the deadline:
the replay runs the job when there is no slack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from lightning_green.backtest.observation import RECENT_HOURS, Observation
from lightning_green.backtest.scenario import DAY
from lightning_green.planning.job import Level
from lightning_green.planning.plans import Action, Slot

Choice = tuple[Action, Level | None]
"""An action, and the level if it is ``"throttle"``."""

RUN: Choice = ("run", None)


class Start(NamedTuple):
    """Start an exited job again within the hour.

    Attributes:
        wait: Hours until the start, less than 1.

    """

    wait: float


Policy = Callable[[Observation], "Choice | Start"]
"""A policy returns the action of the hour that starts, or `Start` to end an exit within the hour."""

PAUSE_ABOVE, RESUME_BELOW = 55.0, 40.0
"""Percentiles of the last seven days. Between them, the threshold policy repeats its last action."""
BOUNDS_HOURS = 30 * DAY


def next_choice(slots: Sequence[Slot], time: datetime, observation: Observation) -> Choice | Start:
    """Return what a plan does in the hour from ``time`` on.

    A job that has exited starts before the planned work, by the time that it needs to return.

    Args:
        slots: Slots of the plan.
        time: Start of the hour.
        observation: Observation of the hour.

    """
    present = next((slot for slot in slots if slot.start <= time < slot.end), None)
    if present is None:
        return RUN
    return_hours = observation.scenario.return_hours
    if return_hours and present.action == "exit":
        work = next((slot.start for slot in slots if slot.start > time and slot.action != "exit"), None)
        wait = math.inf if work is None else (work - time) / timedelta(hours=1) - return_hours
        if wait < 1.0 - 1e-9 and (observation.state == "exit" or wait > 1e-9):
            return Start(max(0.0, wait))
    return present.action, present.level


def run_now(observation: Observation) -> Choice:
    """Run in every hour."""
    return RUN


def deferred_start(observation: Observation) -> Choice:
    """Start once, without a pause, where the forecast is lowest on average (CATS, Climate-Aware Task Scheduler)."""
    first = observation.first or observation
    outlook, work = first.outlook(), first.remaining_work
    starts = math.floor(first.hours_to_deadline - work + 1e-9) + 1
    if observation.pause is None or starts < 2 or len(outlook) == 0:
        return RUN
    needed = math.ceil(work - 1e-9)
    weights = np.ones(needed)
    weights[-1] = work - (needed - 1)
    means = [float(outlook[start : start + needed] @ weights) for start in range(starts)]
    return RUN if observation.hour >= first.hour + int(np.argmin(means)) else (observation.pause, None)


def lowest_slots(observation: Observation) -> Choice:
    """Run in the lowest hours of the newest forecast (Wiesner et al., "Let's Wait Awhile", 2021)."""
    outlook = observation.outlook()
    if observation.pause is None or len(outlook) == 0:
        return RUN
    rank = int((outlook < outlook[0]).sum())
    return RUN if rank < math.ceil(observation.remaining_work - 1e-9) else (observation.pause, None)


def threshold(observation: Observation) -> Choice:
    """Pause above the 55th percentile of the last seven days and resume below the 40th."""
    recent = observation.history[-RECENT_HOURS:]
    if observation.pause is None or len(recent) == 0:
        return RUN
    is_paused = observation.state in ("hold", "exit")
    limit = np.percentile(recent, RESUME_BELOW if is_paused else PAUSE_ABOVE)
    return RUN if recent[-1] <= limit else (observation.pause, None)


def online(observation: Observation) -> Choice:
    """Pause and resume at the two thresholds that are optimal without any forecast.

    Lechowicz et al., "The Online Pause and Resume Problem" (SIGMETRICS 2024): with ``k`` hours of work, intensities in
    ``[L, U]`` (here those of the last 30 days) and a cost of ``beta`` for each switch, hour number ``i`` is run below
    ``u_i`` while running, and below ``u_i - 2 beta`` while paused.
    """
    recent = observation.history[-BOUNDS_HOURS:]
    if observation.pause is None or len(recent) == 0:
        return RUN
    work = math.ceil((observation.first or observation).remaining_work - 1e-9)
    low, high = float(recent.min()), float(recent.max())
    beta = observation.scenario.resume_hours / 2 * float(recent.mean())
    if high - low <= 2 * beta:
        return RUN
    alpha = competitive_ratio(work, low, high, beta)
    done = max(0, work - math.ceil(observation.remaining_work - 1e-9))
    growth = (1 + 1 / (work * alpha)) ** done
    upper = high * (1 - (1 - 1 / alpha) * growth) + 2 * beta * (1 / (work * alpha) - 1 / work + 1) * growth
    limit = upper - 2 * beta if observation.state in ("hold", "exit") else upper
    return RUN if recent[-1] <= limit else (observation.pause, None)


def competitive_ratio(work: int, low: float, high: float, beta: float) -> float:
    """Return the competitive ratio of the double threshold: the root above 1 of the equation for alpha in the paper.

    Args:
        work: Hours of work.
        low: Lowest intensity in gCO2e/kWh.
        high: Highest intensity in gCO2e/kWh.
        beta: Cost of one switch in gCO2e per kW.

    Examples:
        >>> round(competitive_ratio(5, 100.0, 600.0, 5.0), 1)
        2.2

    """

    def excess(alpha: float) -> float:
        below = high * (1 - 1 / alpha) - 2 * beta * (1 - 1 / work + 1 / (work * alpha))
        if below <= 0:
            return math.inf
        return math.log((high - low - 2 * beta) / below) - work * math.log1p(1 / (work * alpha))

    lower, upper = 1.0, 1e6
    for _ in range(200):
        middle = math.sqrt(lower * upper)
        lower, upper = (middle, upper) if excess(middle) > 0 else (lower, middle)
    return upper


def static_throttle(observation: Observation) -> Choice:
    """Run at one level from start to end: the one of lowest energy that meets the deadline."""
    first = observation.first or observation
    hours = first.hours_to_deadline + 1e-9
    feasible = [level for level in observation.scenario.levels if first.remaining_work / level.speed <= hours]
    if not feasible:
        return RUN
    best = min(feasible, key=lambda level: level.power / level.speed)
    return RUN if best == observation.scenario.levels[0] else ("throttle", best)
