"""Plans with a time to return after an exit, and with idle power of a kept allocation."""

import itertools
import math
from datetime import timedelta

import numpy as np
import pytest

from lightning_green.planning import plan
from tests.helpers.plans import START, actions, cost_of, hourly, job


def returns_in_time(sequence, slots_back):
    """Return whether every exit, from the start or after work, lasts at least as many slots."""
    out = 0
    for before, action in itertools.pairwise(["run", *sequence]):
        if action == "exit":
            out += 1
        elif before == "exit" and out < slots_back:
            return False
        out = out if action == "exit" else 0
    return True


@pytest.mark.parametrize("seed", range(12))
def test_plan_with_a_return_and_idle_power_equals_brute_force_minimum(seed):
    """An exit lasts as many whole slots as the return needs, and draws idle power in each of them."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(20, 600, 7)
    task = job(
        float(rng.integers(10, 45) / 10), 7, resume_cost=0.1, exit_cost=0.05, hold_power=0.3,
        return_time=float(rng.choice([0.2, 1.0, 1.4, 2.5])), out_power=float(rng.choice([0.0, 0.1])), caution=0.0,
    )  # fmt: skip
    needed, best = math.ceil(task.return_time), math.inf
    for sequence in itertools.product([0, "hold", "exit"], repeat=7):
        cost = cost_of(sequence, values, task.work_hours, task, (1.0,) * 7)
        if cost is not None and returns_in_time(["run" if one == 0 else one for one in sequence], needed):
            remaining, idle = task.work_hours, 0.0
            for one, value in zip(sequence, values, strict=True):
                idle += task.out_power * value * (one == "exit" and remaining > 1e-9)
                remaining -= one == 0
            best = min(best, cost + idle)
    assert plan(task, hourly(values), START).gco2e_per_kw == pytest.approx(best, rel=1e-9)


def test_exit_is_not_shorter_than_the_return():
    values = [100, 500, 100, 100]
    assert actions(plan(job(2, 4, resume_cost=0.0, return_time=1.0), hourly(values), START)) == "RXR"
    assert actions(plan(job(2, 4, resume_cost=0.0, return_time=1.1), hourly(values), START)) == "RXXR"
    short = job(2, 3, resume_cost=0.0, return_time=1.1, pauses={"exit"})
    assert actions(plan(short, hourly(values), START)) == "RR"


def test_exited_job_returns_before_its_work():
    task = job(2, 6, resume_cost=0.0, return_time=0.5, state="out")
    answer = plan(task, hourly([500, 100, 100, 500, 500, 500]), START)
    assert answer.slots[0][:6] == (START, START + timedelta(minutes=30), "exit", None, 500.0, 0.0)
    assert answer.until == START + timedelta(hours=1), "to be started half an hour earlier"
    now = plan(task, hourly([100, 100, 100, 500, 500, 500]), START)
    assert (now.until - START, now.end - START) == (timedelta(hours=0.5), timedelta(hours=2.5))
    late = plan(job(2, 2.25, return_time=0.5, state="out"), hourly([100] * 6), START)
    assert late.late_hours == pytest.approx(0.25)
    unknown = plan(task, None, START)
    assert [slot.action for slot in unknown.slots] == ["exit", "run"]


def test_idle_power_of_a_kept_allocation_is_part_of_both_plans():
    values = [600, 400, 100, 100]
    free, kept = (plan(job(1, 4, resume_cost=0.0, out_power=out), hourly(values), START) for out in (0.0, 0.2))
    assert (actions(free), free.gco2e_per_kw) == ("XXR", pytest.approx(100))
    assert kept.gco2e_per_kw == pytest.approx(0.2 * 1000 + 100)
    assert actions(plan(job(1, 4, out_power=0.5, hold_power=0.5), hourly(values), START)) == "R"
    out = plan(job(1, 4, resume_cost=0.0, out_power=0.2, return_time=1, state="out"), hourly([50] * 4), START)
    assert (out.gco2e_per_kw, out.run_now_gco2e_per_kw) == pytest.approx((60, 60))
