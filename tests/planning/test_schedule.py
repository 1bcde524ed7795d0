"""Schedules of minimum cost, the run-now schedule and the deviation of a saving."""

import math

import numpy as np
import pytest

from lightning_green.planning import Level
from lightning_green.planning.dynamic_programming import EXITED, HELD, RUNNING, Costs, solve
from lightning_green.planning.schedule import cheapest_schedule, run_now_schedule, saving_deviation

FULL, SLOW = Level(1, 1), Level(0.5, 0.8)
COSTS = Costs((FULL,), hold_power=0.1, may_exit=True, exit=0.05, back_from_exit=0.2, hold=0.01, back_from_hold=0.02)


def cheapest(work, intensity, costs=COSTS, state=RUNNING, hours=None, **kwargs):
    intensity = np.array(intensity, dtype=np.float64)
    hours = np.ones(len(intensity)) if hours is None else np.array(hours)
    values = solve(hours, intensity, work, costs)
    return cheapest_schedule(values, hours, intensity, costs, state, **kwargs)


def test_energy_includes_the_switches():
    made = cheapest(2, [100, 900, 900, 900, 100])
    assert made.actions == ("run", "exit", "exit", "exit", "run")
    assert made.energy == pytest.approx([1.0, 0.05, 0.0, 0.0, 1.2])
    assert made.levels == (0, -1, -1, -1, 0)
    assert made.has_pause()
    short = cheapest(2, [100, 120, 90], costs=Costs((FULL,), 0.01, True, back_from_exit=2.0))
    assert short.actions == ("run", "hold", "run")
    assert short.energy == pytest.approx([1.0, 0.01, 1.0])


@pytest.mark.parametrize(("state", "back"), [(RUNNING, 0.0), (HELD, 0.02), (EXITED, 0.2)])
def test_work_after_a_pause_costs_its_restart(state, back):
    assert cheapest(1, [100, 900], state=state).energy == pytest.approx([1 + back, 0.0])
    now = run_now_schedule(np.ones(2), COSTS, state, 1.5)
    assert now.actions == ("run", "run")
    assert now.energy == pytest.approx([1 + back, 0.5])
    assert not now.has_pause()


def test_last_slot_ends_with_the_work():
    made = cheapest(1.25, [100, 100, 100])
    assert made.hours == pytest.approx((1.0, 0.25))
    assert made.energy == pytest.approx([1.0, 0.25, 0.0])
    assert made.undone == 0.0


def test_work_that_does_not_fit_is_run_at_once_and_undone():
    made = cheapest(3.5, [900, 100, 100])
    assert made.actions == ("run", "run", "run")
    assert made.undone == pytest.approx(0.5)
    assert run_now_schedule(np.ones(3), COSTS, RUNNING, 3.5).undone == pytest.approx(0.5)


def test_exited_job_never_holds():
    free = Costs((FULL,), hold_power=0.0, may_exit=True, back_from_exit=0.2)
    assert cheapest(1, [900, 900, 100], costs=free, state=EXITED).actions == ("exit", "exit", "run")


def test_first_action_can_be_restricted():
    intensity = [500, 100, 100]
    assert cheapest(1, intensity).actions[0] != "run"
    made = cheapest(1, intensity, first=("run", "throttle"))
    assert made.actions == ("run",)
    assert cheapest(1, intensity, first=("exit",)).actions[0] == "exit"


def test_branches_of_a_short_first_slot_are_followed():
    made = cheapest(1.5, [900, 100, 300, 200], hours=[0.37, 1, 1, 1], costs=Costs((FULL, SLOW), None, True))
    assert made.actions[0] == "exit"
    work = [hours * {0: 1.0, 1: 0.8, -1: 0.0}[level] for hours, level in zip(made.hours, made.levels, strict=True)]
    assert sum(work) == pytest.approx(1.5)
    # An hour throttled at 100, and the remaining 0.7 h throttled at 200.
    assert made.energy @ [900, 100, 300, 200] == pytest.approx(0.5 * 100 + 0.7 / 0.8 * 0.5 * 200)


def test_deviation_of_one_slot_is_its_energy_times_its_spread():
    assert saving_deviation(np.array([0.5]), np.array([40.0]), np.array([0.0, 1.0])) == pytest.approx(20.0)
    assert saving_deviation(np.empty(0), np.empty(0), np.zeros(1)) == 0.0


def test_error_that_neighboring_slots_share_mostly_cancels():
    edges = np.arange(101.0)
    near, far = np.zeros(100), np.zeros(100)
    near[:2], far[[0, 99]] = (1, -1), (1, -1)
    spread = np.full(100, 40.0)
    assert saving_deviation(near, spread, edges) == pytest.approx(40 * math.sqrt(2 * (1 - math.exp(-1 / 12))))
    assert saving_deviation(far, spread, edges) == pytest.approx(40 * math.sqrt(2), rel=1e-3)
