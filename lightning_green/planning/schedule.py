"""From the cost to go to a sequence of actions, and what that sequence draws from the grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.dynamic_programming import EPSILON, HELD, OUT, RUNNING, Costs, Values
from lightning_green.planning.plan import Action

Array = NDArray[np.float64]

MEMORY_HOURS = 12.0
"""Forecast errors fade into each other over about half a day; only used for the uncertainty of a saving."""
TIE = 1e-9
Option = tuple[Action, int, int, float, float, float]
"""Action, level (-1 for a pause), state after it, energy of the switch, power, speed."""


@dataclass(frozen=True)
class Path:
    """Actions slot by slot until the work is done or the slots are at an end.

    Args:
        actions: One per slot.
        levels: Index of the operating point of each slot; -1 for a pause.
        hours: Length that each slot is in use, in hours: shorter than the slot only where the work gets done in it.
        energy: Expected energy of each slot in hours at full power, switches included.
        taken: Expected hours of each slot in which the device is taken, running or held.
        undone: Work left after the last slot, in hours at full speed.

    """

    actions: tuple[Action, ...]
    levels: tuple[int, ...]
    hours: tuple[float, ...]
    energy: Array
    taken: Array
    undone: float

    def paused(self) -> bool:
        """Return whether there is a pause in it."""
        return -1 in self.levels


def follow(
    values: Values,
    hours: Array,
    intensity: Array,
    costs: Costs,
    state: int,
    first: Collection[Action] = ("run", "throttle", "hold", "exit"),
) -> Path:
    """Return the cheapest path from ``state`` whose first action is one of ``first``."""
    left, work, to_go = values.work, values.work, _cost_to_go(values)
    options_of = _options(costs)
    hour, worn = costs.hour, costs.hour + costs.taken
    alive, price_of_time = 1.0, bool(worn)
    actions: list[Action] = []
    levels, used, energy, taken = [], [], [], []
    for slot, (length, price) in enumerate(zip(hours.tolist(), intensity.tolist(), strict=True)):
        if left <= EPSILON:
            break
        if slot == 1 and values.branches:
            to_go = _cost_to_go(values.branch(left), 1)
        if costs.stop_rate:
            alive = math.exp(-costs.stop_rate * (work - left))
        # Where nothing meets the deadline any more, what is left to do is to lose no time: the first option, to run.
        best, chosen = math.inf, None
        for option in options_of[state]:
            action, _, after, start, power, speed = option
            if slot == 0 and action not in first:
                continue
            took, rest = length, left
            if speed:
                took = min(length, left / speed)
                rest = left - took * speed
            total = (start + power * took) * price
            if price_of_time:
                total += (hour if action == "exit" else worn) * took
            total *= alive
            if rest > EPSILON:
                total += to_go(slot + 1, after, rest)
            if total < best * (1 - TIE) or best == math.inf > total:
                best, chosen = total, option
        action, level, after, start, power, speed = chosen or options_of[state][0]
        took = min(length, left / speed) if speed else length
        left = max(0.0, left - took * speed)
        actions.append(action)
        levels.append(level)
        used.append(took)
        energy.append(alive * (start + power * took))
        taken.append(0.0 if action == "exit" else alive * took)
        state = after
    spent = np.zeros((2, len(hours)))
    spent[:, : len(energy)] = energy, taken
    return Path(tuple(actions), tuple(levels), tuple(used), spent[0], spent[1], left if left > EPSILON else 0.0)


def _cost_to_go(values: Values, skipped: int = 0) -> Callable[[int, int, float], float]:
    """Return a function of slot, state and hours of work left; between two cells it is on the line through them.

    The table has no row for the first ``skipped`` slots. Where the values branch, the second slot alone is asked for.
    """
    if values.branches:
        ways = [(branch.work, _cost_to_go(branch, 1)) for branch in values.branches]
        return lambda slot, state, left: min(ways, key=lambda way: abs(way[0] - left))[1](slot, state, left)
    cells, unit, work, rows, item = values.cells, values.unit, values.work, values.rows, values.table.item
    lowest = work - (cells - 1) * unit

    def to_go(slot: int, state: int, left: float) -> float:
        slot -= skipped
        place = cells - (work - left) / unit
        below = math.floor(place + 1e-6)
        part, row = place - below, rows[state]
        if part < 1e-6 and below > 0:
            return item(slot, row, below)
        if below < 1:
            return item(slot, row, 1) * left / lowest
        return (1 - part) * item(slot, row, below) + part * item(slot, row, below + 1)

    return to_go


def _options(costs: Costs) -> tuple[list[Option], ...]:
    """Return for each state what can be done in a slot; run first."""
    starts = {RUNNING: 0.0, HELD: costs.back_from_hold, OUT: costs.back_from_exit}
    options: list[list[Option]] = [[], [], []]
    for state, start in starts.items():
        for index, level in enumerate(costs.levels):
            name: Action = "throttle" if index else "run"
            options[state].append((name, index, RUNNING, start, level.power, level.speed))
        if state != OUT and costs.hold_power is not None:
            enter = costs.hold if state == RUNNING else 0.0
            options[state].append(("hold", -1, HELD, enter, costs.hold_power, 0.0))
        if state == OUT or costs.may_exit:
            options[state].append(("exit", -1, OUT, 0.0 if state == OUT else costs.exit, 0.0, 0.0))
    return tuple(options)


def run_now(hours: Array, costs: Costs, state: int, work: float) -> Path:
    """Return the path that runs at full power until the work is done."""
    before = np.concatenate(([0.0], np.cumsum(hours)))
    used = np.clip(work - before[:-1], 0.0, hours)
    slots = int((used > EPSILON).sum())
    alive = np.exp(-costs.stop_rate * np.minimum(before[:-1], work))
    taken = used * alive
    energy = taken * costs.levels[0].power
    energy[0] += (0.0, costs.back_from_hold, costs.back_from_exit)[state]
    run: Action = "run"
    return Path((run,) * slots, (0,) * slots, tuple(used[:slots].tolist()), energy, taken, max(0.0, work - before[-1]))


def deviation(difference: Array, spread: Array, edges: Array) -> float:
    """Return the standard deviation of the emissions that two paths differ by.

    Errors of the slots are correlated as ``exp(-distance / 12 h)``, so a bias that all slots share mostly cancels.

    Args:
        difference: Energy of one path less that of the other, per slot, in hours at full power.
        spread: Standard deviation of the intensity of each slot.
        edges: Slot borders in hours.

    """
    if not len(difference):
        return 0.0
    middle = (edges[1:] + edges[:-1]) / 2
    decay = np.exp(-np.diff(middle, prepend=middle[0]) / MEMORY_HOURS).tolist()
    variance, carried = 0.0, 0.0
    for part, fade in zip((difference * spread).tolist(), decay, strict=True):
        carried *= fade
        variance += part * (part + 2 * carried)
        carried += part
    return math.sqrt(max(0.0, variance))
