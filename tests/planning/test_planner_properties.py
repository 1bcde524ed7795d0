"""Properties of the plans of all jobs and forecasts."""

import itertools
import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lightning_green.planning import Forecast, Job, Level, plan

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
LEVELS = (Level(1, 1), Level(0.78, 0.9), Level(0.5, 0.65), Level(0.4, 0.6))
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
COSTS = st.sampled_from([0.0, 0.05, 0.1, 0.5])


def over(values, step=60, **kwargs):
    return Forecast([START + timedelta(minutes=step * index) for index in range(len(values))], values, **kwargs)


@st.composite
def jobs(draw, work, levels):
    """A job without a deadline, with the work of a strategy."""
    return Job(
        draw(work),
        levels=levels,
        hold_power=draw(st.floats(0, 1)),
        resume_cost=draw(COSTS),
        exit_cost=draw(COSTS),
        hold_cost=draw(COSTS),
        hold_resume_cost=draw(COSTS),
        pauses=frozenset(draw(st.sets(st.sampled_from(["hold", "exit"])))),
        state=draw(st.sampled_from(["running", "throttled", "held", "out"])),
        safety=draw(st.sampled_from([0.0, 0.02, 0.2])),
    )


@st.composite
def problems(draw, feasible=True):
    values = draw(st.lists(st.integers(0, 15000), min_size=1, max_size=30))
    values = [value / 10 for value in values]
    step = draw(st.sampled_from([60, 30, 15, 5]))
    horizon = len(values) * step / 60
    work = draw(st.floats(0.02, 1.0)) * horizon
    slack = draw(st.floats(0.0 if feasible else -0.9, 2.0)) * work
    job = replace(
        draw(jobs(st.just(work), LEVELS[: draw(st.integers(1, 4))])),
        deadline=START + timedelta(hours=work + slack),
        min_saving=draw(st.sampled_from([0.0, 0.05])),
        caution=draw(st.sampled_from([0.0, 1.0])),
    )
    spread = draw(st.none() | st.just([30.0] * len(values)))
    return job, over(values, step, spread=spread)


@given(problems())
@PATIENT
def test_plan_never_emits_more_than_running_now(problem):
    answer = plan(*problem, START)
    assert answer.gco2e_per_kw <= answer.run_now_gco2e_per_kw * (1 + 1e-9) + 1e-9
    assert answer.saving >= -1e-9


@given(problems())
@PATIENT
def test_feasible_deadline_is_met(problem):
    job, _ = problem
    answer = plan(*problem, START)
    assert answer.late_hours == pytest.approx(0, abs=1e-6)
    assert answer.end <= job.deadline + timedelta(seconds=1)


@given(problems(feasible=False))
@PATIENT
def test_slots_are_contiguous_and_complete_the_work(problem):
    job, _ = problem
    answer = plan(*problem, START)
    assert answer.slots[0].start == START
    assert all(slot.end == after.start for slot, after in zip(answer.slots, answer.slots[1:], strict=False))
    done = sum((slot.end - slot.start) / timedelta(hours=1) * slot.level.speed for slot in answer.slots if slot.level)
    assert done == pytest.approx(job.work_hours, rel=1e-6, abs=1e-6) or answer.end > answer.slots[-1].end


@given(problems(), st.floats(0.1, 0.99))
@PATIENT
def test_infeasible_deadline_runs_now_and_reports_late_hours(problem, short):
    job, forecast = problem
    hours = job.work_hours * short
    job = replace(job, deadline=START + timedelta(hours=hours))
    answer = plan(job, forecast, START)
    assert {slot.action for slot in answer.slots} == {"run"}
    assert answer.late_hours == pytest.approx(job.work_hours - hours, abs=1e-6)


@given(problems(), st.sampled_from([1e-3, 0.45359237, 1000.0]))
@PATIENT
def test_plan_is_independent_of_the_unit_of_intensity(problem, factor):
    job, forecast = problem
    spread = None if forecast.spread is None else forecast.spread * factor
    scaled = replace(forecast, values=forecast.values * factor, spread=spread)
    one, other = plan(job, forecast, START), plan(job, scaled, START)
    assert other.gco2e_per_kw == pytest.approx(one.gco2e_per_kw * factor, rel=1e-6, abs=1e-9)
    assert other.saving == pytest.approx(one.saving, abs=1e-6)


@given(problems(), st.data())
@PATIENT
def test_splitting_a_slot_does_not_change_the_plan(problem, data):
    job, forecast = problem
    at = data.draw(st.integers(0, len(forecast.times) - 1))
    assume(len(forecast.times) > 1)
    step = forecast.times[1] - forecast.times[0]
    # The last interval is as long as the one before it. If that one is split, the last one is split too.
    cut = [at, at + 1] if at == len(forecast.times) - 2 else [at]
    times = sorted([*forecast.times, *(forecast.times[index] + step / 2 for index in cut)])
    values = np.insert(forecast.values, cut, forecast.values[cut])
    spread = None if forecast.spread is None else np.insert(forecast.spread, cut, forecast.spread[cut])
    split = Forecast(times, values, spread)
    assert plan(job, split, START).gco2e_per_kw == pytest.approx(plan(job, forecast, START).gco2e_per_kw, rel=1e-9)


@given(problems(), st.floats(0, 1))
@settings(PATIENT, max_examples=50)
def test_more_actions_never_increase_emissions(problem, share):
    """Further pauses and levels cannot make the best plan worse."""
    job, forecast = problem
    job = replace(job, min_saving=0.0, caution=0.0, safety=0.0)
    free = replace(job, pauses=frozenset({"hold", "exit"}), levels=LEVELS)
    least = plan(free, forecast, START).gco2e_per_kw
    assert least <= plan(job, forecast, START).gco2e_per_kw * (1 + 1e-3) + 1e-9


def forecast_of(seed):
    """Return a forecast of hours to months with steps of an hour to 5 minutes, with a history or without."""
    rng = np.random.default_rng(seed)
    step = int(rng.choice([60, 60, 30, 15, 5]))
    count = int(np.exp(rng.uniform(0, np.log(1500))))
    day = np.sin(np.arange(count) * step / 1440 * 2 * np.pi)
    values = [
        300 + 150 * day + rng.uniform(0, 100, count),
        rng.uniform(10, 900, count),
        np.where(np.arange(count) % 2, 900.0, 20.0),
    ][rng.integers(3)]
    past = int(rng.choice([0, 30, 200]))
    times = [START - timedelta(hours=back) for back in range(past, 0, -1)]
    return over(values, step, history_times=times, history_values=rng.uniform(10, 900, past))


# Hours until the deadline, from hours to 90 days, with as many short ones as long ones.
HOURS_TO_DEADLINE = st.floats(0, math.log(90 * 24)).map(math.exp)


def emissions(job, forecast, hours, now=START):
    return plan(replace(job, deadline=now + timedelta(hours=hours)), forecast, now).gco2e_per_kw


@given(jobs(st.integers(1, 48), LEVELS[:1]), st.integers(0, 2**32 - 1), st.data())
@settings(PATIENT, max_examples=60)
def test_later_deadline_never_increases_emissions(job, seed, data):
    forecast = forecast_of(seed)
    hours = sorted(job.work_hours * 1.2 + data.draw(HOURS_TO_DEADLINE) for _ in range(3))
    planned = [emissions(job, forecast, until) for until in hours]
    for near, far in itertools.pairwise(planned):
        assert far <= near * (1 + 1e-9)


@given(
    st.floats(0, math.log(700))
    .map(math.exp)
    .flatmap(lambda work: st.integers(1, 4).flatmap(lambda count: jobs(st.just(work), LEVELS[:count]))),
    st.floats(0, 300),
    st.integers(0, 2**32 - 1),
    st.data(),
)
@settings(PATIENT, max_examples=40)
def test_later_deadline_never_increases_emissions_of_interpolated_plans(job, minutes, seed, data):
    """The tables of long work at several levels are interpolated, so plans are optimal to a few thousandths."""
    forecast, now = forecast_of(seed), START + timedelta(minutes=minutes)
    hours = sorted(job.work_hours * 1.2 + data.draw(HOURS_TO_DEADLINE) for _ in range(3))
    planned = [emissions(job, forecast, until, now) for until in hours]
    for near, far in itertools.pairwise(planned):
        assert far <= near * (1 + 5e-3)


@given(problems(), st.sampled_from([math.nan, math.inf, -math.inf, -0.001, -1e9]), st.data())
@settings(PATIENT, max_examples=50)
def test_invalid_value_raises_with_its_position(problem, bad, data):
    _, forecast = problem
    at = data.draw(st.integers(0, len(forecast.times) - 1))
    values = forecast.values.copy()
    values[at] = bad
    with pytest.raises(ValueError, match=f"`values` should be finite and not negative, got .* at position {at}"):
        replace(forecast, values=values)
    past = [START - timedelta(hours=back) for back in range(len(values), 0, -1)]
    with pytest.raises(ValueError, match=f"`history_values` should be .* at position {at}"):
        replace(forecast, history_times=past, history_values=values)
    with pytest.raises(ValueError, match=f"`spread` should be .* at position {at}"):
        replace(forecast, spread=values)


@given(problems(), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(PATIENT, max_examples=60)
def test_deadline_is_met_with_unrelated_forecasts_in_every_slot(problem, begun, seed):
    """Every slot is planned with a new random forecast."""
    job, forecast = problem
    rng = np.random.default_rng(seed)
    step = forecast.times[1] - forecast.times[0] if len(forecast.times) > 1 else timedelta(hours=1)
    now = START + begun * step
    job = replace(job, deadline=job.deadline + begun * step)
    for _ in range(500):
        values = rng.uniform(0, 900, len(forecast.times))
        first = plan(job, replace(forecast, values=values), now).slots[0]
        done = (first.end - first.start) / timedelta(hours=1) * (first.level.speed if first.level else 0.0)
        now = first.end
        if job.work_hours - done <= 1e-6:
            break
        state = {"run": "running", "throttle": "throttled", "hold": "held", "exit": "out"}[first.action]
        job = replace(job, work_hours=job.work_hours - done, state=state)
    else:
        pytest.fail("the work never ends")
    assert now <= job.deadline + timedelta(seconds=1)


@given(problems(), st.sampled_from([0.05, 0.5, 1.0, 2.5]), st.integers(0, 2**32 - 1))
@settings(PATIENT, max_examples=60)
def test_deadline_is_met_with_the_time_to_return(problem, return_time, seed):
    """Every slot is planned with a new random forecast; an exited job starts before the end of its exit."""
    job, forecast = problem
    rng = np.random.default_rng(seed)
    now, returning = START, timedelta(hours=return_time)
    job = replace(job, return_time=return_time, state="running")
    for _ in range(500):
        answer = plan(job, replace(forecast, values=rng.uniform(0, 900, len(forecast.times))), now)
        first = answer.slots[0]
        if first.action == "exit":
            assert answer.until >= now + returning - timedelta(seconds=1)
            job = replace(job, state="out")
            start = answer.until - returning
            again = min(start, first.end)  # the supervisor plans again at the end of the slot
            if again < start:
                now = again
                continue
            now = answer.until
            job = replace(job, state="running")
            continue
        done = (first.end - first.start) / timedelta(hours=1) * (first.level.speed if first.level else 0.0)
        now = first.end
        if job.work_hours - done <= 1e-6:
            break
        state = {"run": "running", "throttle": "throttled", "hold": "held"}[first.action]
        job = replace(job, work_hours=job.work_hours - done, state=state)
    else:
        pytest.fail("the work never ends")
    assert now <= job.deadline + timedelta(seconds=2)


@given(problems())
@settings(PATIENT, max_examples=50)
def test_longer_return_and_more_idle_power_never_reduce_emissions(problem):
    job, forecast = problem
    job = replace(job, state="running", min_saving=0.0, caution=0.0, levels=LEVELS[:1])
    planned = [plan(replace(job, return_time=hours), forecast, START).gco2e_per_kw for hours in (0.0, 0.5, 2.0)]
    planned += [
        plan(replace(job, return_time=2.0, out_power=power), forecast, START).gco2e_per_kw for power in (0.1, 1)
    ]
    for less, more in itertools.pairwise(planned):
        assert more >= less * (1 - 1e-3) - 1e-9
