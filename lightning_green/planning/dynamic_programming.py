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
MANY_BRANCHED = 100_000
EPSILON = 1e-9
Shift = tuple[Level, int, float, int]
"""A level, the whole cells it does in a slot, the rest of a cell, and how many cells it finishes within the slot."""


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
        taken: gCO2e per kW for every hour that the device is taken, running or held (embodied emissions).

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
    taken: float = 0.0


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
        table: Cost in gCO2e per kW of full power, shape ``(slots + 1, states, cells + 1)``; infinite where there is no
            way. The states are running, out and held; the last is left out where holding costs no switch and is the
            same as running.
        unit: Hours of work between two cells.
        work: Work left at the start in hours; that of the last cell.
        branches: The same from the second slot on, for each amount that can be left then, where the first slot is no
            multiple of the others; ``table`` is empty then.

    """

    table: Array
    unit: float
    work: float
    branches: tuple[Values, ...] = ()

    @property
    def cells(self) -> int:
        """Index of the last cell."""
        return int(self.table.shape[2]) - 1

    @property
    def rows(self) -> tuple[int, int, int]:
        """Where running, held and out are found in the table."""
        return _rows(int(self.table.shape[1]))

    def branch(self, left: float) -> Values:
        """Return the branch for so much work left after the first slot."""
        return min(self.branches, key=lambda branch: abs(branch.work - left))

    def left(self) -> Array:
        """Return the work left of each cell in hours, shape ``(cells + 1,)``; the first is 0."""
        left: Array = np.maximum(0.0, self.work - (self.cells - np.arange(self.cells + 1.0)) * self.unit)
        return left


def _rows(states: int) -> tuple[int, int, int]:
    """Return the rows of running, held and out in a table of so many states."""
    return (0, 2, 1) if states == 3 else (0, 0, 1)


def work_unit(hours: Array, levels: tuple[Level, ...], work: float, capacity: float = 0.0) -> float:
    """Return the unit of work of the table in hours.

    Where the table stays small, the greatest common divisor of what each level does in each slot: no rounding then, and
    the programme is exact. The last slot does not count where nothing can be done beyond it, or everything
    (``capacity``, in hours): the cost beyond is on one line then, also between cells. The first and the last slot may
    be cut short; where that makes the divisor tiny they are left out of it. Beyond that the unit follows from the size
    of the table, and values between cells are interpolated.
    """
    straight = capacity <= EPSILON or capacity >= work - EPSILON
    first = hours[:-1] if straight and len(hours) > 1 else hours
    for part, finest in ((first, TICKS), (hours[1:-1], FINEST)):
        lengths = np.unique(np.round(part * TICKS).astype(np.int64))
        if not len(lengths) or len(lengths) > 400:
            continue
        divisor = math.gcd(*{round(int(length) * level.speed) for length in lengths for level in levels})
        if divisor > 0:
            unit = divisor / math.ceil(divisor / finest) / TICKS
            if len(hours) * work / unit <= MANY_CELLS:
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
    rests = _rests(hours, costs, work, tail)
    if rests:
        branches = tuple(_solve(hours[1:], intensity[1:], rest, costs, tail, work) for rest in rests)
        return Values(np.empty((0, 0, 0)), 0.0, work, branches)
    return _solve(hours, intensity, work, costs, tail, work)


def _rests(hours: Array, costs: Costs, work: float, tail: Tail) -> list[float]:
    """Return how much work can be left after the first slot, where it is better to go on from each of that apart.

    A first slot that is cut short (most plans are made within an hour) would make the table fine, or its values
    interpolated.
    """
    if len(hours) < 3:
        return []
    first, unit = float(hours[0]), work_unit(hours[1:], costs.levels, work, tail.capacity)
    cells = [first * level.speed / unit for level in costs.levels]
    rests = {round(work - first * level.speed, 12) for level in costs.levels} | {work}
    if all(abs(cell - round(cell)) < 1e-6 for cell in cells) or len(rests) * len(hours) * work / unit > MANY_BRANCHED:
        return []
    return sorted(rest for rest in rests if rest > EPSILON)


def _solve(hours: Array, intensity: Array, work: float, costs: Costs, tail: Tail, begun: float) -> Values:
    """Do what :func:`solve` does in one table; ``begun`` is the work that a job has of which this is the rest."""
    unit = work_unit(hours, costs.levels, work, tail.capacity)
    cells = max(1, math.ceil(work / unit - 1e-6))
    switches = costs.hold > 0 or costs.back_from_hold > 0
    back = np.array([0.0, costs.back_from_exit, costs.back_from_hold][: 3 if switches else 2])
    table = np.full((len(hours) + 1, len(back), cells + 1), np.inf)
    values = Values(table, unit, work)
    left = values.left()
    beyond = np.where(left <= tail.capacity + EPSILON, left * tail.price, np.inf)
    table[-1] = beyond + tail.price * back[:, np.newaxis]
    table[:, :, 0] = 0.0
    weight = np.exp(-costs.stop_rate * (begun - left)) if costs.stop_rate else None
    # No amount of work outside these bounds can be left when a slot begins: only they are worth computing.
    most = np.concatenate(([0.0], np.cumsum(hours)))
    lowest = np.maximum(1, cells - np.floor(most / unit + 1e-6).astype(int) - 1).tolist()
    highest = np.minimum(cells, np.floor((most[-1] - most + tail.capacity) / unit + 1e-6).astype(int) + 1).tolist()
    lengths, prices = hours.tolist(), intensity.tolist()
    shifts = {length: _shifts(length, costs.levels, left, unit) for length in set(lengths)}
    plain = weight is None and not switches and not costs.hour and not costs.exit and not costs.taken
    sweep = _sweep_plain if plain else _sweep
    sweep(table, lowest, highest, lengths, prices, costs, shifts, left, weight)
    return values


def _sweep(
    table: Array,
    lowest: list[int],
    highest: list[int],
    lengths: list[float],
    prices: list[float],
    costs: Costs,
    shifts: dict[float, list[Shift]],
    left: Array,
    weight: Array | None,
) -> None:
    """Fill the table from the last slot to the first."""
    for slot in range(len(lengths) - 1, -1, -1):
        low, high, length, price = lowest[slot], highest[slot], lengths[slot], prices[slot]
        if low <= high:
            now, later = table[slot, :, low : high + 1], table[slot + 1]
            _run(now[0], later[0], low, high, length, price, costs, shifts[length], left, weight)
            _pause(now, later[:, low : high + 1], low, high, length, price, costs, weight)


def _sweep_plain(
    table: Array,
    lowest: list[int],
    highest: list[int],
    lengths: list[float],
    prices: list[float],
    costs: Costs,
    shifts: dict[float, list[Shift]],
    left: Array,
    weight: Array | None,
) -> None:
    """Do what :func:`_sweep` does where only running, holding and coming back from an exit cost anything.

    That is most plans. Their tables are small, so that the number of calls is what takes the time.
    """
    on, out = list(table[:, 0]), list(table[:, 1])
    back, hold, may_exit = costs.back_from_exit, costs.hold_power, costs.may_exit
    power, speed = costs.levels[0].power, costs.levels[0].speed
    add, minimum, multiply = np.add, np.minimum, np.multiply
    simple = len(costs.levels) == 1
    # Most that being out can cost above running, over all amounts of work left: a hold that costs as much is never
    # better than an exit, and need not be looked at.
    ends = table[-1][:, np.isfinite(table[-1, 0])]
    most = float((ends[1] - ends[0]).max())
    later, gone = on[-1], out[-1]
    for slot in range(len(lengths) - 1, -1, -1):
        low, stop, length, price = lowest[slot], highest[slot] + 1, lengths[slot], prices[slot]
        run, away, wait, same = on[slot], out[slot], gone, later
        _, whole, part, finish = shifts[length][0]
        if simple and whole and not part:  # all amounts at once: cutting out those that are possible takes longer
            add(later[:-whole], length * power * price, out=run[whole:])
            if finish > 1:
                multiply(left[1:finish], power / speed * price, out=run[1:finish])
        else:
            run, away, wait, same = run[low:stop], away[low:stop], wait[low:stop], same[low:stop]
            if low < stop:
                _run(run, later, low, stop - 1, length, price, costs, shifts[length], left, weight)
        if back:
            minimum(add(run, back * price, out=away), wait, out=away)
        else:
            minimum(run, wait, out=away)
        waiting = math.inf if hold is None else length * hold * price
        if hold is not None and (waiting < most or not may_exit):
            minimum(run, same + waiting, out=run)
        if may_exit:
            minimum(run, wait, out=run)
        most = max(back * price, most - waiting)
        later, gone = on[slot], out[slot]


def _shifts(length: float, levels: tuple[Level, ...], left: Array, unit: float) -> list[Shift]:
    """Return for each level: whole cells done in a slot, the rest of a cell, how many cells finish within the slot."""
    shifts = []
    for level in levels:
        cells = length * level.speed / unit
        whole = math.floor(cells + 1e-6)
        part = cells - whole
        part = 0.0 if part < 1e-6 else part
        # Where it is done just as the slot ends, both ways to count it agree; the other one needs no case of its own.
        margin = EPSILON if part else -EPSILON
        finish = int(np.searchsorted(left, length * level.speed + margin, side="right"))
        shifts.append((level, whole, part, finish))
    return shifts


def _run(
    run: Array,
    later: Array,
    low: int,
    high: int,
    length: float,
    intensity: float,
    costs: Costs,
    shifts: list[Shift],
    left: Array,
    weight: Array | None,
) -> None:
    """Write into ``run`` the cost of working in this slot, at the best level, for the cells ``low`` to ``high``."""
    best: Array | None = None
    for level, whole, part, finish in shifts:
        first = max(low, finish)
        hour = level.power * intensity + costs.hour + costs.taken
        if best is None and first == low and not part and weight is None:
            best = np.add(later[low - whole : high + 1 - whole], length * hour, out=run)
            continue
        if first > low:
            stop = min(first, high + 1)
            done = left[low:stop] * (hour / level.speed)
            if weight is not None:
                done *= weight[low:stop]
            np.minimum(run[: stop - low], done, out=run[: stop - low])
        if first <= high:
            rest = later[first - whole : high + 1 - whole]
            if part:
                rest = (1 - part) * rest + part * later[first - whole - 1 : high - whole]
                if first - whole - 1 == 0:
                    # The lowest cell is not a whole unit: its value is on the line to nothing left, nothing to pay.
                    rest[0] = later[1] * (left[first] - length * level.speed) / left[1]
            spent = length * hour if weight is None else length * hour * weight[first : high + 1]
            np.minimum(run[first - low :], rest + spent, out=run[first - low :])
        best = run


def _pause(
    now: Array,
    later: Array,
    low: int,
    high: int,
    length: float,
    intensity: float,
    costs: Costs,
    weight: Array | None,
) -> None:
    """Compare the cost of working, in the first row of ``now``, with that of a pause, and fill in the other rows."""
    _, held, out = _rows(len(now))
    price: float | Array = intensity if weight is None else intensity * weight[low : high + 1]
    run, left, wait = now[0], now[out], later[out]
    if costs.hour:
        wait = wait + (costs.hour * length if weight is None else costs.hour * length * weight[low : high + 1])
    if costs.back_from_exit:
        np.add(run, costs.back_from_exit * price, out=left)
        np.minimum(left, wait, out=left)
    else:
        np.minimum(run, wait, out=left)
    if held:
        np.add(run, costs.back_from_hold * price, out=now[held])
    if costs.hold_power is not None:
        alive: float | Array = 1.0 if weight is None else weight[low : high + 1]
        hold = later[held] + length * (costs.hold_power * price + (costs.hour + costs.taken) * alive)
        if held:
            np.minimum(now[held], hold, out=now[held])
            hold += costs.hold * price
        np.minimum(run, hold, out=run)
    if costs.may_exit:
        gone = wait + costs.exit * price if costs.exit else wait
        np.minimum(run, gone, out=run)
        if held:
            np.minimum(now[held], gone, out=now[held])
