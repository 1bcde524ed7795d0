"""The cheapest way to do a job in given slots: an exact dynamic programme over slot, work left and state.

The recursion is Bellman's; with one level, no hold power and no cost of a switch it is "the k lowest slots" of Wiesner
et al., "Let's Wait Awhile" (Middleware 2021). Throttle levels, holds and exits are further actions in every slot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.job import Level

Array = NDArray[np.float64]

RUNNING, HELD, OUT = 0, 1, 2
TICKS = 36000
"""Ticks of 0.1 s in an hour: lengths are compared as whole ticks."""
FINEST = TICKS // 12
MANY_CELLS = 1_000_000
EPSILON = 1e-9


@dataclass(frozen=True)
class Costs:
    """What an hour and a switch cost, in hours at full power.

    Args:
        levels: Operating points, none dominated; the first is full.
        hold_power: Power while held; None where holding is not possible.
        may_exit: Whether exiting is possible.
        exit: Energy of leaving.
        back_from_exit: Energy of coming back from an exit.
        hold: Energy of going into a hold.
        back_from_hold: Energy of coming back from a hold.
        hour: gCO2e per kW for every hour until the end, whatever is done in it (the price on time).
        stop_rate: Chance per hour of work that the job ends early.

    """

    levels: tuple[Level, ...]
    hold_power: float | None
    may_exit: bool
    exit: float = 0.0
    back_from_exit: float = 0.0
    hold: float = 0.0
    back_from_hold: float = 0.0
    hour: float = 0.0
    stop_rate: float = 0.0


@dataclass(frozen=True)
class Tail:
    """What lies beyond the last slot.

    Args:
        price: gCO2e per hour at full power of the work that is left by then.
        capacity: Hours of work that can be done beyond; 0 where the last slot ends at the deadline.

    """

    price: float = 0.0
    capacity: float = 0.0


@dataclass(frozen=True)
class Values:
    """Least cost to go, from every slot, state and amount of work left.

    Args:
        table: Cost in gCO2e per kW of full power, shape ``(slots + 1, 3, cells + 1)``; infinite where there is no way.
        unit: Hours of work between two cells.
        work: Work left at the start in hours; that of the last cell.

    """

    table: Array
    unit: float
    work: float

    @property
    def cells(self) -> int:
        """Index of the last cell."""
        return int(self.table.shape[2]) - 1

    def left(self) -> Array:
        """Return the work left of each cell in hours, shape ``(cells + 1,)``; the first is 0."""
        left: Array = self.work - (self.cells - np.arange(self.cells + 1)) * self.unit
        return np.maximum(0.0, left)

    def at(self, slot: int, state: int, left: float) -> float:
        """Return the cost to go with ``left`` hours of work, between two cells the line through them."""
        if left <= EPSILON:
            return 0.0
        place = self.cells - (self.work - left) / self.unit
        below = math.floor(place + 1e-6)
        part = place - below
        row = self.table[slot, state]
        if part < 1e-6 and below > 0:
            return float(row[below])
        if below < 1:
            return float(row[1]) * left / (self.work - (self.cells - 1) * self.unit)
        return float((1 - part) * row[below] + part * row[below + 1])


def work_unit(hours: Array, levels: tuple[Level, ...], work: float) -> float:
    """Return the unit of work of the table in hours.

    Where the table stays small, the greatest common divisor of what each level does in each slot: no rounding then, and
    the programme is exact. The first and the last slot may be cut short; where that makes the divisor tiny they are
    left out of it. Beyond that the unit follows from the size of the table, and values between cells are interpolated.
    """
    for part in (hours, hours[1:-1]):
        if not len(part):
            continue
        lengths = np.unique(np.round(part * TICKS).astype(np.int64))
        done = {round(int(length) * level.speed) for length in lengths[:400] for level in levels}
        divisor = math.gcd(*done)
        if divisor <= 0:
            continue
        unit = divisor / math.ceil(divisor / FINEST) / TICKS
        if len(hours) * work / unit <= MANY_CELLS and len(lengths) <= 400:
            return unit
    typical = float(np.median(hours))
    unit = work * len(hours) / MANY_CELLS
    return typical / max(1, math.floor(typical / unit)) if unit < typical else unit


def solve(hours: Array, intensity: Array, work: float, costs: Costs, tail: Tail) -> Values:
    """Return the cost to go of every slot, state and amount of work left.

    Args:
        hours: Length of each slot, shape ``(n,)``.
        intensity: Carbon intensity of each slot in gCO2e/kWh, shape ``(n,)``.
        work: Work left in hours at full speed.
        costs: What running, pausing and switching cost.
        tail: What lies beyond the last slot.

    """
    unit = work_unit(hours, costs.levels, work)
    cells = max(1, math.ceil(work / unit - 1e-6))
    table = np.full((len(hours) + 1, 3, cells + 1), np.inf)
    values = Values(table, unit, work)
    left = values.left()
    beyond = np.where(left <= tail.capacity + EPSILON, left * tail.price, np.inf)
    table[-1] = beyond + tail.price * np.array([[0.0], [costs.back_from_hold], [costs.back_from_exit]])
    table[:, :, 0] = 0.0
    weight = np.exp(-costs.stop_rate * (work - left)) if costs.stop_rate else None
    # No amount of work outside these bounds can be left when a slot begins: only they are worth computing.
    most = np.concatenate(([0.0], np.cumsum(hours)))
    lowest = np.maximum(1, cells - np.floor(most / unit + 1e-6).astype(int) - 1)
    highest = np.minimum(cells, np.floor((most[-1] - most + tail.capacity) / unit + 1e-6).astype(int) + 1)
    shifts = {float(length): _shifts(float(length), costs.levels, left, unit) for length in np.unique(hours)}
    for slot in range(len(hours) - 1, -1, -1):
        low, high = int(lowest[slot]), int(highest[slot])
        if low <= high:
            _step(table, slot, low, high, float(hours[slot]), float(intensity[slot]), costs, shifts, left, weight)
    return values


def _shifts(length: float, levels: tuple[Level, ...], left: Array, unit: float) -> list[tuple[Level, int, float, int]]:
    """Return for each level: whole cells done in a slot, the rest of a cell, how many cells finish within the slot."""
    shifts = []
    for level in levels:
        cells = length * level.speed / unit
        whole = math.floor(cells + 1e-6)
        part = cells - whole
        finish = int(np.searchsorted(left, length * level.speed + EPSILON, side="right"))
        shifts.append((level, whole, 0.0 if part < 1e-6 else part, finish))
    return shifts


def _step(
    table: Array,
    slot: int,
    low: int,
    high: int,
    length: float,
    intensity: float,
    costs: Costs,
    shifts: dict[float, list[tuple[Level, int, float, int]]],
    left: Array,
    weight: Array | None,
) -> None:
    """Fill in one slot of the table for the cells ``low`` to ``high``."""
    later, cells = table[slot + 1], slice(low, high + 1)
    price = intensity if weight is None else intensity * weight[cells]
    hour = costs.hour if weight is None else costs.hour * weight[cells]
    run = table[slot, RUNNING, cells]
    for level, whole, part, finish in shifts[length]:
        first = max(low, finish)
        if first > low:
            done = left[low : min(first, high + 1)] / level.speed
            np.minimum(
                run[: len(done)],
                done * (level.power * _head(price, len(done)) + _head(hour, len(done))),
                out=run[: len(done)],
            )
        if first > high:
            continue
        next_cost = later[RUNNING, first - whole : high + 1 - whole]
        if part:
            next_cost = (1 - part) * next_cost + part * later[RUNNING, first - whole - 1 : high - whole]
            if first - whole - 1 == 0:
                # The lowest cell is not a whole unit: its value is on the line to nothing left, nothing to pay.
                rest = left[first] - length * level.speed
                next_cost[0] = later[RUNNING, 1] * rest / left[1]
        now = length * (level.power * price + hour)
        if isinstance(now, np.ndarray):
            now = now[first - low :]
        np.minimum(run[first - low :], next_cost + now, out=run[first - low :])
    wait = length * hour
    hold = None if costs.hold_power is None else later[HELD, cells] + (costs.hold_power * length * price + wait)
    out = later[OUT, cells] + wait
    table[slot, OUT, cells] = np.minimum(run + costs.back_from_exit * price, out)
    gone = out + costs.exit * price if costs.may_exit else None
    held = run + costs.back_from_hold * price
    if hold is not None:
        np.minimum(held, hold, out=held)
    if gone is not None:
        np.minimum(held, gone, out=held)
    table[slot, HELD, cells] = held
    if hold is not None:
        np.minimum(run, hold + costs.hold * price, out=run)
    if gone is not None:
        np.minimum(run, gone, out=run)


def _head(value: float | Array, length: int) -> float | Array:
    """Return the first ``length`` entries, of a number the number."""
    return value[:length] if isinstance(value, np.ndarray) else value
