"""Baseline policies from the literature in hours worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_green.backtest.observation import Observation
from lightning_green.backtest.policies import (
    RUN,
    competitive_ratio,
    deferred_start,
    lowest_slots,
    online,
    run_now,
    static_throttle,
    threshold,
)
from lightning_green.backtest.scenario import Scenario
from lightning_green.planning import Level

EXIT = ("exit", None)
PAUSING = [deferred_start, lowest_slots, threshold, online]
MIDNIGHT = 480_000


def observation(outlook=(), history=(), work=2.0, hour=MIDNIGHT, deadline=None, state="run", first=None, **scenario):
    """Return an observation with a forecast issued now."""
    return Observation(
        hour=hour,
        history=np.array(history, dtype=np.float64),
        known_until=hour,
        issued=np.array([hour] if len(outlook) else [], dtype=np.int64),
        forecasts=np.array([outlook] if len(outlook) else [], dtype=np.float64),
        remaining_work=work,
        hours_to_deadline=float(len(outlook) or 12) if deadline is None else deadline,
        state=state,
        scenario=Scenario(**scenario),
        first=first,
    )


def test_run_now_runs_at_any_intensity():
    assert run_now(observation([900, 1, 1, 1], [1, 1, 900])) == RUN


@pytest.mark.parametrize("policy", PAUSING)
def test_policy_without_data_or_without_a_pause_runs(policy):
    assert policy(observation()) == RUN
    assert policy(observation([900, 1, 1, 1, 1, 1], [1, 1, 1, 900], pauses=frozenset())) == RUN


@pytest.mark.parametrize("policy", PAUSING)
def test_policy_holds_if_an_exit_is_not_allowed(policy):
    seen = observation([900, 1, 1, 1, 1, 1], [1, 1, 1, 900], pauses=frozenset({"hold"}))
    assert policy(seen) == ("hold", None)


def test_deferred_start_runs_from_the_lowest_mean_on():
    first = observation([300, 300, 100, 90, 100, 50, 400], work=2.5)
    # Sums of 2.5 hours: 650, 445, 240, 215, 350
    choices = [deferred_start(replace(first, hour=MIDNIGHT + at, first=first if at else None)) for at in range(5)]
    assert choices == [EXIT] * 3 + [RUN] * 2


def test_deferred_start_weights_the_last_hour_by_its_part():
    # Sums of 1.25 hours: 275, 200; sums of 2 hours: 350, 500
    assert deferred_start(observation([250, 100, 400], work=1.25)) == EXIT


def test_deferred_start_never_pauses_after_its_start():
    first = observation([100, 100, 500, 500, 500], work=2.0)
    later = observation([900, 1, 1, 1], work=1.0, hour=MIDNIGHT + 1, first=first)
    assert deferred_start(later) == RUN


def test_lowest_slots_runs_in_the_lowest_hours_of_the_newest_forecast():
    values = [300, 100, 200, 400]
    assert lowest_slots(observation(values, work=2.0)) == EXIT
    assert lowest_slots(observation(values, work=2.5)) == RUN, "a part of an hour needs a slot"
    assert lowest_slots(observation(values[1:], work=1.0)) == RUN


def test_threshold_pauses_above_the_55th_and_resumes_below_the_40th_percentile():
    history = np.arange(101.0)
    for state, limit in (("run", 55), ("throttle", 55), ("hold", 40), ("exit", 40)):
        for last, expected in ((limit - 2, RUN), (limit + 2, EXIT)):
            assert threshold(observation(history=[*history, last], state=state)) == expected, (state, last)


def test_threshold_uses_the_last_seven_days():
    old, recent = np.full(30 * 24, 500.0), np.linspace(0, 100, 7 * 24 - 1)
    assert threshold(observation(history=[*old, *recent, 70.0])) == EXIT


@pytest.mark.parametrize(("work", "low", "high", "beta"), [(5, 100.0, 600.0, 5.0), (3, 100.0, 130.0, 14.0)])
def test_competitive_ratio_solves_the_equation_of_the_paper(work, low, high, beta):
    alpha = competitive_ratio(work, low, high, beta)
    below = high * (1 - 1 / alpha) - 2 * beta * (1 - 1 / work + 1 / (work * alpha))
    assert (high - low - 2 * beta) / below == pytest.approx((1 + 1 / (work * alpha)) ** work)
    assert alpha > 1


def test_competitive_ratio_is_higher_for_an_expensive_switch_and_a_wide_range():
    assert 1 < competitive_ratio(5, 100.0, 600.0, 5.0) < competitive_ratio(5, 100.0, 600.0, 20.0)
    assert competitive_ratio(5, 100.0, 600.0, 5.0) < competitive_ratio(5, 100.0, 1200.0, 5.0)


def test_online_pauses_above_its_first_threshold_and_resumes_two_switches_below():
    history = np.linspace(100.0, 600.0, 200)
    work, beta = 4, 0.4 / 2 * 350.0
    alpha = competitive_ratio(work, 100.0, 600.0, beta)
    # The first hour is run below U / alpha + 2 beta (1 / (k alpha) - 1 / k + 1), in the notation of the paper.
    upper = 600 / alpha + 2 * beta * (1 / (work * alpha) - 1 / work + 1)
    for state, limit in (("run", upper), ("exit", upper - 2 * beta)):
        for last, expected in ((limit - 5, RUN), (limit + 5, EXIT)):
            seen = observation(history=[*history, last], work=float(work), state=state, resume_hours=0.4)
            assert online(seen) == expected, (state, last)


def test_online_accepts_less_after_each_hour_of_work():
    history = [*np.linspace(100.0, 600.0, 200), 200.0]
    first = observation(history=history, work=8.0)
    choices = [online(replace(first, remaining_work=8.0 - done, first=first)) for done in range(8)]
    assert choices == sorted(choices, reverse=True), "the policy pauses from some hour of work on"
    assert set(choices) == {RUN, EXIT}


def test_online_runs_if_a_switch_costs_more_than_it_can_save():
    assert online(observation(history=[100.0, 101.0], resume_hours=0.1)) == RUN


def test_static_throttle_has_the_least_energy_that_meets_the_deadline():
    levels = (Level(0.8, 0.9), Level(0.5, 0.7))
    assert static_throttle(observation(work=7.0, deadline=10.0, throttle=levels)) == ("throttle", levels[1])
    assert static_throttle(observation(work=7.0, deadline=9.0, throttle=levels)) == ("throttle", levels[0])
    assert static_throttle(observation(work=7.0, deadline=7.5, throttle=levels)) == RUN
    assert static_throttle(observation(work=7.0, deadline=6.0, throttle=levels)) == RUN
    assert static_throttle(observation(work=7.0, deadline=20.0, throttle=(Level(0.95, 0.9),))) == RUN
    first = observation(work=7.0, deadline=10.0, throttle=levels)
    assert static_throttle(replace(first, hours_to_deadline=1.0, first=first)) == ("throttle", levels[1])
