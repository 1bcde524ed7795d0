"""Least-cost scheduling of a job in given slots, by dynamic programming over slot, remaining work and state.

The recursion is Bellman's. With one level, no hold power and no switching cost it selects the k lowest slots of Wiesner
et al., "Let's Wait Awhile" (Middleware 2021). Throttle levels, holds and exits are further actions in every slot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.job import Level

Array = NDArray[np.float64]

RUNNING, HELD, EXITED = 0, 1, 2
TICKS = 36000
"""Ticks of 0.1 s in an hour. Lengths are compared as whole ticks."""
MAX_UNIT_TICKS = TICKS // 12
MAX_CELLS = 1_000_000
MAX_BRANCH_CELLS = 400_000
EPSILON = 1e-9


@dataclass(frozen=True)
class Costs:
    """Costs of an hour in each state and of each switch, in hours at full power unless noted.

    Args:
        levels: Operating points, none dominated. The first is full power.
        hold_power: Power while held; None if holding is not possible.
        may_exit: Whether exiting is possible.
        exit: Energy of an exit.
        back_from_exit: Energy of a restart after an exit.
        hold: Energy of entering a hold.
        back_from_hold: Energy of resuming from a hold.
        hour: gCO2e per kW for every hour until the end, in any state (the price of delay).
        out: Power while exited.
        return_hours: Shortest time from an exit to the next work.

    """

    levels: tuple[Level, ...]
    hold_power: float | None
    may_exit: bool
    exit: float = 0.0
    back_from_exit: float = 0.0
    hold: float = 0.0
    back_from_hold: float = 0.0
    hour: float = 0.0
    out: float = 0.0
    return_hours: float = 0.0


@dataclass(frozen=True)
class Values:
    """Minimum cost to go from every slot, state and amount of remaining work.

    Args:
        table: Cost in gCO2e per kW of full power, shape ``(slots + 1, states, cells + 1)``; infinite if infeasible. The
            states are running, exited and held. Held is omitted if holding has no switching cost, because it then
            equals running.
        unit: Hours of work between two cells.
        work: Remaining work at the start in hours; the value of the last cell.
        branches: Values from the second slot on, one for each amount of work that can remain after the first slot, if
            the first slot is not a multiple of ``unit``. ``table`` is then empty.

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
        """Rows of the states running, held and exited in the table."""
        return _rows(int(self.table.shape[1]))

    def branch(self, remaining: float) -> Values:
        """Return the branch for ``remaining`` hours of work after the first slot."""
        return min(self.branches, key=lambda branch: abs(branch.work - remaining))

    def remaining(self) -> Array:
        """Return the remaining work of each cell in hours, shape ``(cells + 1,)``. The first is 0."""
        remaining: Array = np.maximum(0.0, self.work - (self.cells - np.arange(self.cells + 1.0)) * self.unit)
        return remaining


class _Slot(NamedTuple):
    """A slot, and the range of cells that can remain at its start."""

    low: int
    high: int
    hours: float
    intensity: float


class _Step(NamedTuple):
    """Work done at one level in a slot: whole cells, the fraction of another, and the cells that finish in the slot."""

    level: Level
    cells: int
    fraction: float
    finish: int


def _rows(states: int) -> tuple[int, int, int]:
    """Return the rows of running, held and exited in a table with that many states."""
    return (0, 2, 1) if states == 3 else (0, 0, 1)


def work_unit(hours: Array, levels: tuple[Level, ...], work: float) -> float:
    """Return the work between two cells of the table, in hours.

    If the table stays small, this is the greatest common divisor of the work done at each level in each slot. Nothing
    is rounded then and the solution is exact. The first and the last slot may be cut short. They are ignored if they
    make the divisor tiny; the last slot is always ignored, because the cost to go is linear there. For larger tables
    the unit follows from the maximum size, and values between cells are interpolated.

    Args:
        hours: Length of each slot in hours, shape ``(n,)``.
        levels: Operating points.
        work: Remaining work in hours at full speed.

    """
    all_but_last = hours[:-1] if len(hours) > 1 else hours
    for part, max_ticks in ((all_but_last, TICKS), (hours[1:-1], MAX_UNIT_TICKS)):
        lengths = np.unique(np.round(part * TICKS).astype(np.int64))
        if not len(lengths) or len(lengths) > 400:
            continue
        divisor = math.gcd(*{round(int(length) * level.speed) for length in lengths for level in levels})
        if divisor > 0:
            unit = divisor / math.ceil(divisor / max_ticks) / TICKS
            if len(hours) * work / unit <= MAX_CELLS:
                return unit
    typical = float(np.median(hours))
    unit = work * len(hours) / MAX_CELLS
    return typical / max(1, math.floor(typical / unit)) if unit < typical else unit


def return_slots(hours: Array, return_hours: float) -> list[int]:
    """Return the first slot in which work is possible after an exit at the start of each slot.

    This is the next slot if ``return_hours`` is not longer than the slot, and ``n`` or more if no slot is left.

    Args:
        hours: Length of each slot in hours, shape ``(n,)``.
        return_hours: Shortest time from an exit to the next work.

    """
    edges = np.concatenate(([0.0], np.cumsum(hours)))
    first = np.searchsorted(edges, edges[:-1] + return_hours - EPSILON)
    ready: list[int] = np.maximum(first, np.arange(1, len(hours) + 1)).tolist()
    return ready


def solve(hours: Array, intensity: Array, work: float, costs: Costs) -> Values:
    """Return the minimum cost to go for every slot, state and amount of remaining work.

    Args:
        hours: Length of each slot in hours, shape ``(n,)``.
        intensity: Carbon intensity of each slot in gCO2e/kWh, shape ``(n,)``, or another cost per kWh, which may be
            negative.
        work: Remaining work in hours at full speed.
        costs: Costs of running, pausing and switching.

    """
    amounts = _branch_amounts(hours, costs, work)
    if amounts:
        branches = tuple(_solve(hours[1:], intensity[1:], amount, costs) for amount in amounts)
        return Values(np.empty((0, 0, 0)), 0.0, work, branches)
    return _solve(hours, intensity, work, costs)


def _branch_amounts(hours: Array, costs: Costs, work: float) -> list[float]:
    """Return the amounts of work that can remain after the first slot, if each should get its own table.

    A short first slot (most plans are made within an hour) would need a fine table, or interpolation.
    """
    if len(hours) < 3:
        return []
    first, unit = float(hours[0]), work_unit(hours[1:], costs.levels, work)
    cells = [first * level.speed / unit for level in costs.levels]
    amounts = {round(work - first * level.speed, 12) for level in costs.levels} | {work}
    is_multiple = all(abs(cell - round(cell)) < 1e-6 for cell in cells)
    if is_multiple or len(amounts) * len(hours) * work / unit > MAX_BRANCH_CELLS:
        return []
    return sorted(amount for amount in amounts if amount > EPSILON)


def _solve(hours: Array, intensity: Array, work: float, costs: Costs) -> Values:
    """Solve in one table. The arguments are those of `solve`."""
    unit = work_unit(hours, costs.levels, work)
    cells = max(1, math.ceil(work / unit - 1e-6))
    has_hold_cost = costs.hold > 0 or costs.back_from_hold > 0
    table = np.full((len(hours) + 1, 3 if has_hold_cost else 2, cells + 1), np.inf)
    values = Values(table, unit, work)
    remaining = values.remaining()
    table[:, :, 0] = 0.0
    # Only the amounts of work within these bounds can remain when a slot begins. Interpolation rounds work up to cells.
    elapsed = np.concatenate(([0.0], np.cumsum(hours)))
    done = np.concatenate(([0], np.cumsum(np.ceil(hours / unit - 1e-6).astype(int))))
    lowest = np.maximum(1, cells - done - 1).tolist()
    reachable = np.floor((elapsed[-1] - elapsed) / unit + 1e-6).astype(int) + 1
    highest = np.minimum(cells, reachable)
    steps = {length: _steps(length, costs.levels, remaining, unit) for length in set(hours.tolist())}
    if any(step.fraction for length in set(hours[1:-1].tolist()) for step in steps[length]):
        highest = np.minimum(highest, _price_late_cells(values, hours, intensity, costs) - 1)
    slots = [
        _Slot(*slot)
        for slot in zip(lowest[:-1], highest[:-1].tolist(), hours.tolist(), intensity.tolist(), strict=True)
    ]
    ready = return_slots(hours, costs.return_hours)
    waits = np.append(0.0, np.cumsum(hours * (costs.out * intensity + costs.hour)))
    for index, slot in reversed(list(enumerate(slots))):
        if slot.low <= slot.high:
            cells_here = slice(slot.low, slot.high + 1)
            now, later = table[index, :, cells_here], table[index + 1]
            _run(now[0], later[0], slot, costs, steps[slot.hours], remaining)
            back, after_exit = ready[index], None
            if back > len(hours):
                after_exit = np.full(now.shape[1], np.inf)
            elif back > index + 1:
                after_exit = table[back, values.rows[EXITED], cells_here] + (waits[back] - waits[index])
            _pause(now, later[:, cells_here], slot, costs, after_exit)
    return values


def _price_late_cells(values: Values, hours: Array, intensity: Array, costs: Costs) -> NDArray[np.int64]:
    """Write the cost of the lowest cell of each slot that does not fit before the end, and return these cells.

    Values are interpolated between this cell and the one below. With an infinite cost, the job would lose up to a cell
    of slack in each slot. The cost is that of full power until the end, and of the highest intensity afterwards.
    `cheapest_schedule` chooses only actions after which the work still fits.
    """
    remaining, cells = values.remaining(), values.cells
    left = np.append(np.cumsum(hours[::-1])[::-1], 0.0)
    late = np.searchsorted(remaining, left + EPSILON, side="right")
    rows = np.flatnonzero(late <= cells)
    hour = intensity + costs.hour
    run = np.append(np.cumsum((hours * hour)[::-1])[::-1], 0.0)[rows]
    over = (remaining[late[rows]] - left[rows]) * float(hour.max())
    price = np.append(intensity, intensity[-1])[rows]
    running, held, exited = values.rows  # held may equal running, so running is written last
    for row, back in ((held, costs.back_from_hold), (exited, costs.back_from_exit), (running, 0.0)):
        values.table[rows, row, late[rows]] = run + over + back * price
    return late


def _steps(length: float, levels: tuple[Level, ...], remaining: Array, unit: float) -> list[_Step]:
    """Return the work done at each level in a slot of ``length`` hours."""
    steps = []
    for level in levels:
        cells = length * level.speed / unit
        whole = math.floor(cells + 1e-6)
        fraction = cells - whole
        fraction = 0.0 if fraction < 1e-6 else fraction
        # Work that ends exactly with the slot may count either way; counting it as unfinished needs no special case.
        margin = EPSILON if fraction else -EPSILON
        finish = int(np.searchsorted(remaining, length * level.speed + margin, side="right"))
        steps.append(_Step(level, whole, fraction, finish))
    return steps


def _run(run: Array, later: Array, slot: _Slot, costs: Costs, steps: list[_Step], remaining: Array) -> None:
    """Write the cost of working in this slot at the best level into ``run``.

    Args:
        run: Output, the cost of the cells ``slot.low`` to ``slot.high``.
        later: Cost of running from the next slot on, for all cells.
        slot: The slot.
        costs: Costs.
        steps: Work done in the slot at each level.
        remaining: Remaining work of all cells in hours.

    """
    low, high, length, intensity = slot
    for index, (level, whole, fraction, finish) in enumerate(steps):
        first = max(low, finish)
        hour = level.power * intensity + costs.hour
        if index == 0 and first == low and not fraction:
            np.add(later[low - whole : high + 1 - whole], length * hour, out=run)
            continue
        if first > low:
            stop = min(first, high + 1)
            np.minimum(run[: stop - low], remaining[low:stop] * (hour / level.speed), out=run[: stop - low])
        if first <= high:
            rest = later[first - whole : high + 1 - whole]
            if fraction:
                rest = (1 - fraction) * rest + fraction * later[first - whole - 1 : high - whole]
                if first - whole - 1 == 0:
                    # The lowest cell is not a whole unit: interpolate linearly between it and no remaining work.
                    rest[0] = later[1] * (remaining[first] - length * level.speed) / remaining[1]
            np.minimum(run[first - low :], rest + length * hour, out=run[first - low :])


def _pause(now: Array, later: Array, slot: _Slot, costs: Costs, after_exit: Array | None) -> None:
    """Reduce the cost of working, in the first row of ``now``, where a pause costs less, and fill the other rows.

    Args:
        now: Cost of the cells ``slot.low`` to ``slot.high`` in each state.
        later: The same from the next slot on.
        slot: The slot.
        costs: Costs.
        after_exit: Cost of exiting in this slot, without that of the switch, if the exit has to last beyond the slot.

    """
    _, _, length, price = slot
    _, held, exited = _rows(len(now))
    run, restart, wait = now[0], now[exited], later[exited]
    rate = costs.out * price + costs.hour
    if rate:
        wait = wait + rate * length
    if costs.back_from_exit:
        np.add(run, costs.back_from_exit * price, out=restart)
        np.minimum(restart, wait, out=restart)
    else:
        np.minimum(run, wait, out=restart)
    if held:
        np.add(run, costs.back_from_hold * price, out=now[held])
    if costs.hold_power is not None:
        hold = later[held] + length * (costs.hold_power * price + costs.hour)
        if held:
            np.minimum(now[held], hold, out=now[held])
            hold += costs.hold * price
        np.minimum(run, hold, out=run)
    if costs.may_exit:
        exits = wait if after_exit is None else after_exit
        exits = exits + costs.exit * price if costs.exit else exits
        np.minimum(run, exits, out=run)
        if held:
            np.minimum(now[held], exits, out=now[held])
