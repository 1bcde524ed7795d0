"""Carbon policies to compare the planner with, each a small function of what may be known.

A policy takes a :class:`~lightning_green.backtest.observation.View` and returns what to do in the hour that begins.
No policy has to check the deadline: the simulator runs the job when there is no time left to wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lightning_green.backtest.observation import DAY, RECENT, View
from lightning_green.planning.job import Level
from lightning_green.planning.plan import Action

Choice = tuple[Action, Level | None]
Policy = Callable[[View], Choice]
RUN: Choice = ("run", None)

PAUSE_ABOVE, RESUME_BELOW = 55.0, 40.0
"""Percentiles of the last seven days between which the threshold policy keeps on doing what it did."""
BOUNDS_HOURS = 30 * DAY


def run_now(view: View) -> Choice:
    """Run, whatever the grid does."""
    return RUN


def deferred_start(view: View) -> Choice:
    """Start once, without a break, where the forecast is lowest on average (CATS, Climate-Aware Task Scheduler)."""
    begin = view.first or view
    outlook, work = begin.outlook(), begin.work_left
    starts = math.floor(begin.hours_left - work + 1e-9) + 1
    if view.pause is None or starts < 2 or len(outlook) == 0:
        return RUN
    needed = math.ceil(work - 1e-9)
    weights = np.ones(needed)
    weights[-1] = work - (needed - 1)
    means = [float(outlook[start : start + needed] @ weights) for start in range(starts)]
    return RUN if view.hour >= begin.hour + int(np.argmin(means)) else (view.pause, None)


def lowest_slots(view: View) -> Choice:
    """Run in the hours that are lowest in the newest forecast (Wiesner et al., "Let's Wait Awhile", 2021)."""
    outlook = view.outlook()
    if view.pause is None or len(outlook) == 0:
        return RUN
    rank = int((outlook < outlook[0]).sum())
    return RUN if rank < math.ceil(view.work_left - 1e-9) else (view.pause, None)


def threshold(view: View) -> Choice:
    """Pause above the 55th percentile of the last seven days, and come back below the 40th."""
    recent = view.past[-RECENT:]
    if view.pause is None or len(recent) == 0:
        return RUN
    paused = view.state in ("hold", "exit")
    limit = np.percentile(recent, RESUME_BELOW if paused else PAUSE_ABOVE)
    return RUN if recent[-1] <= limit else (view.pause, None)


def online(view: View) -> Choice:
    """Pause and resume between the two thresholds that are optimal where nothing of the future is known.

    Lechowicz et al., "The Online Pause and Resume Problem" (SIGMETRICS 2024): with ``k`` hours of work, intensities in
    ``[L, U]`` (here those of the last 30 days) and a cost of ``beta`` for each switch, the hour number ``i`` is run
    below ``u_i`` while running, and below ``u_i - 2 beta`` while paused.
    """
    recent = view.past[-BOUNDS_HOURS:]
    if view.pause is None or len(recent) == 0:
        return RUN
    work = math.ceil((view.first or view).work_left - 1e-9)
    low, high = float(recent.min()), float(recent.max())
    beta = view.resume_cost / 2 * float(recent.mean())
    if high - low <= 2 * beta:
        return RUN
    alpha = competitive_ratio(work, low, high, beta)
    done = max(0, work - math.ceil(view.work_left - 1e-9))
    growth = (1 + 1 / (work * alpha)) ** done
    upper = high * (1 - (1 - 1 / alpha) * growth) + 2 * beta * (1 / (work * alpha) - 1 / work + 1) * growth
    limit = upper - 2 * beta if view.state in ("hold", "exit") else upper
    return RUN if recent[-1] <= limit else (view.pause, None)


def competitive_ratio(work: int, low: float, high: float, beta: float) -> float:
    """Return the competitive ratio of the double threshold: the root above 1 of the paper's equation for alpha.

    Example::

        >>> round(competitive_ratio(5, 100.0, 600.0, 5.0), 1)
        2.2

    """

    def excess(alpha: float) -> float:
        below = high * (1 - 1 / alpha) - 2 * beta * (1 - 1 / work + 1 / (work * alpha))
        if below <= 0:
            return math.inf
        return math.log((high - low - 2 * beta) / below) - work * math.log1p(1 / (work * alpha))

    least, most = 1.0, 1e6
    for _ in range(200):
        middle = math.sqrt(least * most)
        least, most = (middle, most) if excess(middle) > 0 else (least, middle)
    return most


def static_throttle(view: View) -> Choice:
    """Run at the level that needs least energy for the work, of those that meet the deadline, from start to end."""
    begin = view.first or view
    meets = [level for level in view.levels if begin.work_left / level.speed <= begin.hours_left + 1e-9]
    if not meets:
        return RUN
    best = min(meets, key=lambda level: level.power / level.speed)
    return RUN if best == view.levels[0] else ("throttle", best)
