"""Cost to go of worked examples, and the unit of the table."""

from fractions import Fraction

import numpy as np
import pytest

from lightning_green.planning import Level
from lightning_green.planning.dynamic_programming import MAX_CELLS, Costs, solve, work_unit
from lightning_green.planning.schedule import cheapest_schedule

FULL, SLOW = Level(1, 1), Level(0.5, 0.8)
FREE = Costs((FULL,), hold_power=None, may_exit=True)
ONES = np.ones(6)
INTENSITY = np.array([300.0, 100.0, 500.0, 200.0, 50.0, 400.0])


def cost(work, costs=FREE, hours=ONES, intensity=INTENSITY, state=0):
    """Return the minimum cost of a job that starts in a state: 0 running, 1 held, 2 exited."""
    values = solve(hours, intensity, work, costs)
    return float(values.table[0, values.rows[state], -1])


@pytest.mark.parametrize("work", [1, 2, 3, 4, 5, 6])
def test_without_costs_the_lowest_slots_are_used(work):
    assert cost(work) == pytest.approx(np.sort(INTENSITY)[:work].sum())


def test_without_pauses_the_first_slots_are_used():
    steady = Costs((FULL,), hold_power=None, may_exit=False)
    assert cost(3, steady) == pytest.approx(INTENSITY[:3].sum())
    assert cost(2.5, steady) == pytest.approx(300 + 100 + 0.5 * 500)


def test_hold_costs_its_power_and_its_switches():
    intensity = np.array([100.0, 600.0, 100.0])
    costs = Costs((FULL,), hold_power=0.25, may_exit=False, hold=0.1, back_from_hold=0.2)
    assert cost(2, costs, np.ones(3), intensity) == pytest.approx(100 + (0.1 + 0.25) * 600 + (1 + 0.2) * 100)
    assert cost(1, costs, np.ones(3), intensity, state=1) == pytest.approx((1 + 0.2) * 100)


def test_exit_costs_its_energy_and_the_restart_but_no_power():
    intensity = np.array([100.0, 600.0, 600.0, 100.0])
    costs = Costs((FULL,), hold_power=None, may_exit=True, exit=0.1, back_from_exit=0.3)
    assert cost(2, costs, np.ones(4), intensity) == pytest.approx(100 + 0.1 * 600 + (1 + 0.3) * 100)
    assert cost(1, costs, np.ones(4), intensity, state=2) == pytest.approx((1 + 0.3) * 100)


def test_throttle_level_draws_less_and_takes_longer():
    costs = Costs((FULL, SLOW), hold_power=None, may_exit=False)
    intensity = np.array([100.0, 300.0])
    assert cost(1.6, costs, np.ones(2), intensity) == pytest.approx(0.5 * 100 + 0.5 * 300)
    assert cost(2.0, costs, np.ones(2), intensity) == pytest.approx(100 + 300)


def test_delay_price_is_paid_in_every_hour_until_the_end():
    costs = Costs((FULL,), hold_power=None, may_exit=True, hour=30.0)
    assert cost(1, costs, np.ones(2), np.array([150.0, 100.0])) == pytest.approx(100 + 2 * 30)
    costs = Costs((FULL,), hold_power=None, may_exit=True, hour=60.0)
    assert cost(1, costs, np.ones(2), np.array([150.0, 100.0])) == pytest.approx(150 + 60)


def test_work_that_does_not_fit_into_the_slots_costs_infinitely_much():
    assert cost(6.5) == np.inf
    assert cost(6) < np.inf


def test_short_first_slot_has_a_branch_for_each_amount_of_remaining_work():
    hours = np.array([0.37, 1.0, 1.0, 1.0])
    values = solve(hours, np.array([100.0, 300.0, 50.0, 400.0]), 2.0, Costs((FULL, SLOW), None, True))
    assert [branch.work for branch in values.branches] == pytest.approx([2.0 - 0.37, 2.0 - 0.37 * 0.8, 2.0])
    assert values.branch(1.6) is values.branches[0]
    assert all(branch.remaining()[-1] == branch.work for branch in values.branches)
    # An hour at full power at 50, an hour throttled at 300, and the remaining 0.2 h throttled at 400.
    assert values.branches[2].table[0, 0, -1] == pytest.approx(50 + 0.5 * 300 + 0.2 / 0.8 * 0.5 * 400)


def test_unit_is_the_greatest_common_divisor_of_the_work_in_each_slot():
    assert work_unit(ONES, (FULL,), 3.0) == pytest.approx(1.0)
    assert work_unit(np.full(6, 0.25), (FULL,), 3.0) == pytest.approx(0.25)
    unit = work_unit(ONES, (FULL, Level(0.78, 0.9)), 3.0)
    assert Fraction(0.9 / unit).limit_denominator(1000).denominator == 1
    assert unit == pytest.approx(0.1)


def test_odd_last_slot_does_not_reduce_the_unit():
    hours = np.array([1.0, 1.0, 1.0, 0.3337])
    assert work_unit(hours, (FULL,), 2.0) == pytest.approx(1.0)


@pytest.mark.parametrize("slack", [3.0, 20.0, 200.0])
@pytest.mark.parametrize(("levels", "share"), [((FULL,), 0.9), ((FULL, Level(0.77, 0.913)), 1.4)])
def test_interpolated_table_uses_the_slack(levels, share, slack):
    """The work of a slot is a multiple of the unit in no slot. A second level saves more than pauses alone."""
    hours = np.concatenate((np.full(288, 1 / 12), np.full(700, 1.0), np.full(300, 3.0)))
    intensity = np.tile([900.0, 20.0], len(hours) // 2)
    work = float(hours.sum()) - slack
    assert work_unit(hours, levels, work) > 1.5
    costs = Costs(levels, hold_power=None, may_exit=True)
    made = cheapest_schedule(solve(hours, intensity, work, costs), hours, intensity, costs, 0)
    assert made.undone == 0.0
    assert hours @ intensity - made.energy @ intensity > share * slack * 900


def test_table_size_is_limited():
    hours = np.full(2000, 5 / 60)
    unit = work_unit(hours, (FULL, Level(0.77, 0.913)), 150.0)
    assert len(hours) * 150.0 / unit <= MAX_CELLS * 1.001
