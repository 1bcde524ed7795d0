"""The sequence of actions with the minimum cost, and its expected energy."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.dynamic_programming import EPSILON, EXITED, HELD, RUNNING, Costs, Values, return_slots
from lightning_green.planning.plans import Action

Array = NDArray[np.float64]

ERROR_CORRELATION_HOURS = 12.0
"""Decay time of the correlation of forecast errors. Used only for the standard deviation of a saving."""
TIE = 1e-9
ACTIONS: tuple[Action, ...] = ("run", "throttle", "hold", "exit")


class _Option(NamedTuple):
    """An action in one slot: level (-1 for a pause), state after it, energy of the switch, power and speed."""

    action: Action
    level: int
    state: int
    switch: float
    power: float
    speed: float


@dataclass(frozen=True)
class Schedule:
    """Actions slot by slot until the work is done or the slots end.

    Args:
        actions: Action of each slot.
        levels: Index of the operating point of each slot; -1 for a pause.
        hours: Used length of each slot in hours. Shorter than the slot only if the work ends in it.
        energy: Expected energy of each slot in hours at full power, switches included.
        undone: Remaining work after the last slot, in hours at full speed.

    """

    actions: tuple[Action, ...]
    levels: tuple[int, ...]
    hours: tuple[float, ...]
    energy: Array
    undone: float

    def has_pause(self) -> bool:
        """Return whether any slot is a pause."""
        return -1 in self.levels


def cheapest_schedule(
    values: Values,
    hours: Array,
    intensity: Array,
    costs: Costs,
    state: int,
    first: Collection[Action] = ACTIONS,
) -> Schedule:
    """Return the schedule of minimum cost whose first action is one of ``first``.

    Args:
        values: Cost to go, from `solve`.
        hours: Length of each slot in hours, shape ``(n,)``.
        intensity: Carbon intensity of each slot in gCO2e/kWh, or another cost per kWh, shape ``(n,)``.
        costs: Costs that ``values`` were computed with.
        state: State before the first slot.
        first: Allowed actions in the first slot.

    """
    remaining, to_go = values.work, _cost_to_go(values)
    options_of, hour = _options(costs), costs.hour
    actions: list[Action] = []
    levels, used, energy = [], [], []
    left, last = float(hours.sum()), len(hours)
    ready, edges = return_slots(hours, costs.return_hours), np.append(0.0, np.cumsum(hours)).tolist()
    waits = np.append(0.0, np.cumsum(hours * (costs.out * intensity + hour))).tolist()
    stays_out = 0  # first slot after the shortest possible exit
    for slot, (length, price) in enumerate(zip(hours.tolist(), intensity.tolist(), strict=True)):
        if remaining <= EPSILON:
            break
        if slot == 1 and values.branches:
            to_go = _cost_to_go(values.branch(remaining), 1)
        # If the deadline can no longer be met, every cost is infinite and the first option is chosen: run.
        options = options_of[state] if slot >= stays_out else options_of[EXITED][-1:]
        best, chosen = math.inf, options[0]
        left -= length
        for option in options:
            action, _, after, switch, power, speed = option
            if slot == 0 and action not in first:
                continue
            took, rest = length, remaining
            if speed:
                took = min(length, remaining / speed)
                rest = remaining - took * speed
            if action == "exit" and state != EXITED:
                back = ready[slot]
                if back > last:
                    continue
                lost, waited = edges[back] - edges[slot + 1], waits[back] - waits[slot + 1]
            else:
                back, lost, waited = slot + 1, 0.0, 0.0
            if rest > left - lost + EPSILON:
                continue
            total = (switch + power * took) * price + hour * took
            if rest > EPSILON:
                total += waited + to_go(back, after, rest)
            if total < best * (1 - TIE if best > 0 else 1 + TIE) or best == math.inf > total:
                best, chosen = total, option
        if chosen.action == "exit" and state != EXITED:
            stays_out = ready[slot]
        action, level, state, switch, power, speed = chosen
        took = min(length, remaining / speed) if speed else length
        remaining = max(0.0, remaining - took * speed)
        actions.append(action)
        levels.append(level)
        used.append(took)
        energy.append(switch + power * took)
    padded = np.zeros(len(hours))
    padded[: len(energy)] = energy
    undone = remaining if remaining > EPSILON else 0.0
    return Schedule(tuple(actions), tuple(levels), tuple(used), padded, undone)


def run_now_schedule(hours: Array, costs: Costs, state: int, work: float) -> Schedule:
    """Return the schedule that runs at full power until the work is done.

    Args:
        hours: Length of each slot in hours, shape ``(n,)``.
        costs: Costs.
        state: State before the first slot.
        work: Remaining work in hours at full speed.

    """
    elapsed = np.concatenate(([0.0], np.cumsum(hours)))
    used = np.clip(work - elapsed[:-1], 0.0, hours)
    slots = int((used > EPSILON).sum())
    energy = used.copy()
    energy[0] += {RUNNING: 0.0, HELD: costs.back_from_hold, EXITED: costs.back_from_exit}[state]
    run: Action = "run"
    undone = max(0.0, work - elapsed[-1])
    return Schedule((run,) * slots, (0,) * slots, tuple(used[:slots].tolist()), energy, undone)


def saving_deviation(difference: Array, spread: Array, edges: Array) -> float:
    """Return the standard deviation of the difference in emissions between two schedules.

    Errors of two slots are correlated by ``exp(-distance / 12 h)``, so an error that all slots share mostly cancels.

    Args:
        difference: Energy of one schedule minus that of the other in hours at full power, shape ``(n,)``.
        spread: Standard deviation of the intensity of each slot in gCO2e/kWh, shape ``(n,)``.
        edges: Slot edges in hours, shape ``(n + 1,)``.

    """
    if not len(difference):
        return 0.0
    middle = (edges[1:] + edges[:-1]) / 2
    decays = np.exp(-np.diff(middle, prepend=middle[0]) / ERROR_CORRELATION_HOURS).tolist()
    variance, correlated = 0.0, 0.0
    for error, decay in zip((difference * spread).tolist(), decays, strict=True):
        correlated *= decay
        variance += error * (error + 2 * correlated)
        correlated += error
    return math.sqrt(max(0.0, variance))


def _cost_to_go(values: Values, skipped: int = 0) -> Callable[[int, int, float], float]:
    """Return a function of slot, state and hours of remaining work; linear between two cells.

    The table starts after the first ``skipped`` slots. With branches, only the second slot can be evaluated.
    """
    if values.branches:
        functions = [(branch.work, _cost_to_go(branch, 1)) for branch in values.branches]
        return lambda slot, state, remaining: min(functions, key=lambda item: abs(item[0] - remaining))[1](
            slot, state, remaining
        )
    cells, unit, work, rows, item = values.cells, values.unit, values.work, values.rows, values.table.item
    lowest = work - (cells - 1) * unit

    def to_go(slot: int, state: int, remaining: float) -> float:
        slot -= skipped
        position = cells - (work - remaining) / unit
        below = math.floor(position + 1e-6)
        fraction, row = position - below, rows[state]
        if fraction < 1e-6 and below > 0:
            return item(slot, row, below)
        if below < 1:
            return item(slot, row, 1) * remaining / lowest
        return (1 - fraction) * item(slot, row, below) + fraction * item(slot, row, below + 1)

    return to_go


def _options(costs: Costs) -> tuple[list[_Option], ...]:
    """Return the possible actions of each state; running at full power comes first."""
    restart = {RUNNING: 0.0, HELD: costs.back_from_hold, EXITED: costs.back_from_exit}
    options: list[list[_Option]] = [[], [], []]
    for state, energy in restart.items():
        for index, level in enumerate(costs.levels):
            options[state].append(
                _Option("throttle" if index else "run", index, RUNNING, energy, level.power, level.speed)
            )
        if state != EXITED and costs.hold_power is not None:
            enter = costs.hold if state == RUNNING else 0.0
            options[state].append(_Option("hold", -1, HELD, enter, costs.hold_power, 0.0))
        if state == EXITED or costs.may_exit:
            options[state].append(_Option("exit", -1, EXITED, 0.0 if state == EXITED else costs.exit, costs.out, 0.0))
    return tuple(options)
