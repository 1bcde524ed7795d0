"""Plans of worked examples, compared with brute force: deadlines, filled hours, reasons."""

import itertools
import math
from datetime import timedelta

import numpy as np
import pytest

from lightning_green.planning import Forecast, Job, Level, plan
from tests.helpers.plans import START, actions, cost_of, hourly, job


@pytest.mark.parametrize("seed", range(25))
def test_plan_equals_brute_force_minimum(seed):
    """No sequence of actions in six slots emits less than the plan."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(20, 600, 6)
    levels = (Level(1, 1), Level(0.78, 0.9)) if seed % 2 else (Level(1, 1),)
    task = job(
        float(rng.integers(10, 45) / 10),
        6,
        levels=levels,
        hold_power=float(rng.choice([0.0, 0.1, 0.3])),
        resume_cost=float(rng.choice([0.0, 0.1, 0.5])),
        exit_cost=float(rng.choice([0.0, 0.2])),
        hold_cost=float(rng.choice([0.0, 0.05])),
        hold_resume_cost=float(rng.choice([0.0, 0.05])),
    )
    choices = [*range(len(levels)), "hold", "exit"]
    costs = (cost_of(way, values, task.work_hours, task) for way in itertools.product(choices, repeat=6))
    least = min(cost for cost in costs if cost is not None)
    answer = plan(task, hourly(values), START)
    assert answer.gco2e_per_kw == pytest.approx(least, rel=1e-9)
    taken = [task.levels.index(slot.level) if slot.level else slot.action for slot in answer.slots]
    taken += [0] * (6 - len(taken))
    assert cost_of(taken, values, task.work_hours, task) == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_plan_within_an_hour_equals_brute_force_minimum(seed):
    """The first and the last slot are shorter than an hour."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(20, 600, 6)
    begun, spare = float(rng.uniform(0.01, 0.99)), float(rng.uniform(0.01, 0.99))
    now = START + timedelta(hours=begun)
    levels = (Level(1, 1), Level(0.78, 0.9)) if seed % 2 else (Level(1, 1),)
    task = Job(
        float(rng.uniform(0.2, 1.0)) * (5 - begun + spare),
        deadline=START + timedelta(hours=5 + spare),
        levels=levels,
        hold_power=float(rng.choice([0.0, 0.1, 0.3])),
        resume_cost=float(rng.choice([0.0, 0.1, 0.5])),
        safety=0.0,
    )
    lengths = [1 - begun, 1, 1, 1, 1, spare]
    choices = [*range(len(levels)), "hold", "exit"]
    ways = itertools.product(choices, repeat=6)
    costs = (cost_of(way, values, task.work_hours, task, lengths) for way in ways)
    least = min(cost for cost in costs if cost is not None)
    assert plan(task, hourly(values), now).gco2e_per_kw == pytest.approx(least, rel=1e-9)


def test_long_pause_is_an_exit_and_short_pause_a_hold():
    short = plan(job(4, 6, hold_power=0.2, resume_cost=1.5), hourly([100, 500, 100, 100, 100, 500]), START)
    assert actions(short) == "RHRRR"
    long = plan(job(4, 12, hold_power=0.2, resume_cost=1.5), hourly([100] + [500] * 6 + [100] * 5), START)
    assert actions(long) == "RXXXXXXRRR"


def test_plan_contains_only_allowed_pauses():
    values = [500] * 4 + [50] * 4
    assert "X" not in actions(plan(job(4, 8, pauses=frozenset({"hold"}), hold_power=0.0), hourly(values), START))
    assert "H" not in actions(plan(job(4, 8, pauses=frozenset({"exit"})), hourly(values), START))
    assert actions(plan(job(4, 8, pauses=frozenset()), hourly(values), START)) == "RRRR"


def test_exited_job_may_stay_exited_but_never_holds():
    answer = plan(job(2, 6, state="out"), hourly([500, 500, 500, 100, 100, 500]), START)
    assert actions(answer) == "XXXRR"
    assert answer.run_now_gco2e_per_kw == pytest.approx(0.1 * 500 + 1000)
    assert answer.gco2e_per_kw == pytest.approx(0.1 * 100 + 200)


def test_flat_grid_runs_now():
    answer = plan(job(4, 24), hourly([300] * 24), START)
    assert actions(answer) == "RRRR"
    assert answer.saving == 0
    assert "no pause" in answer.reason


def test_job_without_a_deadline_runs_now():
    answer = plan(Job(4, levels=(Level(1, 1), Level(0.5, 0.9))), hourly([500, 500, 1, 1] * 6), START)
    assert actions(answer) == "RRRR"
    assert "without a deadline" in answer.reason


def test_unknown_intensity_runs_now():
    for forecast in (None, Forecast([], [])):
        answer = plan(job(4, 24), forecast, START)
        assert actions(answer) == "R"
        assert answer.end == START + timedelta(hours=4)
        assert answer.saving == 0
        assert math.isnan(answer.gco2e_per_kw)
        assert "nothing is known" in answer.reason


def test_infeasible_deadline_reports_late_hours():
    answer = plan(job(10, 7.5), hourly([100] * 24), START)
    assert actions(answer) == "R" * 10
    assert answer.late_hours == pytest.approx(2.5)
    assert "2.5 h late" in answer.reason


def test_safety_margin_is_kept():
    values = [500, 100, 100, 100, 100, 100]
    assert actions(plan(job(5, 6, safety=0.0), hourly(values), START)) == "XRRRRR"
    guarded = plan(job(5, 6, safety=0.25), hourly(values), START)
    assert actions(guarded) == "RRRRR"
    assert "safety margin" in guarded.reason


def test_short_forecast_is_filled_from_the_same_hour_of_recent_days():
    past = [START - timedelta(hours=h) for h in range(72, 0, -1)]
    history = [100 if 12 <= time.hour < 16 else 400 for time in past]
    forecast = hourly([400, 400, 400], history_times=past, history_values=history)
    answer = plan(job(4, 20), forecast, START)
    assert actions(answer) == "X" * 12 + "RRRR"
    assert any("recent days" in note for note in answer.notes)


def test_short_forecast_without_history_repeats_its_last_day():
    values = [400] * 24
    values[12:16] = [100] * 4
    late = START + timedelta(hours=16)
    forecast = hourly(values)
    answer = plan(Job(4, deadline=START + timedelta(hours=44), safety=0.0), forecast, late)
    assert answer.slots[0].action == "exit"
    assert [slot.start for slot in answer.slots if slot.action == "run"] == [
        START + timedelta(hours=h) for h in range(36, 40)
    ]
    assert any("last day" in note for note in answer.notes)


@pytest.mark.parametrize("known", [True, False])
def test_hours_before_the_forecast_are_filled(known):
    """The forecast starts in four hours. The hours before are clean in the history or in its own last day."""
    past = [START - timedelta(hours=h) for h in range(48, 0, -1)]
    history = {"history_times": past, "history_values": [100 if t.hour < 2 else 400 for t in past]} if known else {}
    values = [400] * 20 + [100] * 4
    answer = plan(job(2, 28), hourly(values, start=START + timedelta(hours=4), **history), START)
    assert actions(answer) == "RR"
    assert any("does not cover 4 h" in note for note in answer.notes)


def test_empty_forecast_is_planned_from_the_history():
    past = [START - timedelta(hours=h) for h in range(48, 0, -1)]
    forecast = Forecast([], [], history_times=past, history_values=[100 if t.hour == 5 else 400 for t in past])
    answer = plan(job(1, 12), forecast, START)
    assert actions(answer) == "XXXXXR"


def test_planning_in_the_middle_of_an_hour():
    now = START + timedelta(minutes=20)
    answer = plan(job(2, 6), hourly([500, 100, 100, 400, 400, 400]), now)
    assert answer.slots[0].start == now
    assert answer.slots[0].end == START + timedelta(hours=1)
    assert [slot.action for slot in answer.slots] == ["exit", "run", "run"]
    assert answer.end == START + timedelta(hours=3)
    assert answer.until == START + timedelta(hours=1)


def test_slots_are_contiguous_and_complete_the_work():
    values = np.random.default_rng(1).uniform(50, 500, 48)
    answer = plan(job(20.3, 47.1, levels=(Level(1, 1), Level(0.7, 0.85))), hourly(values), START)
    assert answer.slots[0].start == START
    assert all(a.end == b.start for a, b in itertools.pairwise(answer.slots))
    assert answer.end == answer.slots[-1].end <= START + timedelta(hours=47.1)
    done = sum((slot.end - slot.start) / timedelta(hours=1) * slot.level.speed for slot in answer.slots if slot.level)
    assert done == pytest.approx(20.3)
    assert sum(slot.gco2e_per_kw for slot in answer.slots) == pytest.approx(answer.gco2e_per_kw)


def test_dominated_level_is_dropped_with_a_note():
    levels = (Level(1, 1), Level(0.9, 0.8), Level(0.8, 0.9))
    answer = plan(job(4, 12, levels=levels), hourly([100] * 12), START)
    assert not any(slot.level == levels[1] for slot in answer.slots)
    assert answer.notes == ("Throttle level 0.9:0.8 is dropped: 0.8:0.9 is at least as fast and draws no more.",)


def test_min_saving_prevents_a_pause_that_saves_less():
    values = [110, 100, 100, 100, 100, 100]
    assert "X" in actions(plan(job(4, 6, resume_cost=0.0), hourly(values), START))
    answer = plan(job(4, 6, resume_cost=0.0, min_saving=0.05), hourly(values), START)
    assert actions(answer) == "RRRR"
    assert "less than the 5.0%" in answer.reason


def test_caution_requires_a_saving_above_the_uncertainty():
    values, spread = [150, 100, 100, 100, 100, 100], [60.0] * 6
    careless = plan(job(4, 6, caution=0.0), hourly(values, spread=spread), START)
    assert careless.slots[0].action == "exit"
    assert careless.saving_std > 0
    careful = plan(job(4, 6, caution=4.0), hourly(values, spread=spread), START)
    assert careful.slots[0].action == "run"
    assert "uncertainty" in careful.reason
    assert plan(job(4, 6), hourly(values, spread=spread), START).slots[0].action == "exit"
    certain = plan(job(4, 6, caution=4.0), hourly(values, spread=[1.0] * 6), START)
    assert certain.slots[0].action == "exit"


def test_hold_requires_four_times_the_margin_of_an_exit():
    values, spread = [150, 100, 100, 100, 100, 100], [60.0] * 6
    free = {"hold_power": 0.0, "resume_cost": 0.0}
    for caution, pauses in ((0.5, "X"), (0.9, "H"), (0.5, "H"), (1.0, "H"), (3.0, "X"), (6.0, "X")):
        allowed = frozenset({"exit" if pauses == "X" else "hold"})
        answer = plan(job(4, 6, caution=caution, pauses=allowed, **free), hourly(values, spread=spread), START)
        pays = caution * (0.25 if pauses == "X" else 1.0) * answer_noise(spread) < 50
        assert (actions(answer)[0] == pauses) == pays, (caution, pauses)


def answer_noise(spread):
    """Return the standard deviation of moving an hour of work from now to the fifth hour (errors decay in 12 h)."""
    return math.sqrt(2 * spread[0] ** 2 * (1 - math.exp(-4 / 12)))


def test_forecast_issued_in_the_future_raises():
    forecast = hourly([100] * 4, issued_at=START + timedelta(hours=1))
    with pytest.raises(ValueError, match="future"):
        plan(job(1, 4), forecast, START)


@pytest.mark.parametrize("over", [1e-5, 1e-4, 1e-3, 0.01, 1.0])
def test_tiny_last_slot_is_ignored(over):
    """A deadline shortly after the hour creates a slot in which no work can be done."""
    values = [500, 500, 100, 100, 500, 500]
    task = Job(2, deadline=START + timedelta(hours=5, seconds=over), safety=0.0)
    assert actions(plan(task, hourly(values), START)) == "XXRR"
    full = Job(5, deadline=START + timedelta(hours=5, seconds=over), safety=0.0)
    assert actions(plan(full, hourly(values), START)) == "RRRRR"


def test_naive_now_raises():
    with pytest.raises(ValueError, match="`now` should have a time zone"):
        plan(job(1, 4), hourly([100] * 4), START.replace(tzinfo=None))


@pytest.mark.parametrize("work", [400, 1400, 9000])
def test_long_work_with_little_slack_meets_the_deadline(work):
    """Work of 9000 h is longer than the longest horizon."""
    answer = plan(job(work, work + 100), hourly(np.tile([100.0, 300.0] * 12, 5)), START)
    assert answer.end <= START + timedelta(hours=work + 100)
    assert answer.slots[0].action == "run"
    assert ("longer than the longest plan" in answer.reason) is (work == 9000)


@pytest.mark.parametrize("state", ["running", "out"])
@pytest.mark.parametrize("work", [2, 3])
def test_far_deadline_does_not_replace_the_clean_hours_of_today(state, work):
    """Every second hour is clean, in all of the days until the deadline."""
    task = {"state": state, "resume_cost": 0.001, "hold_power": 0.9}
    near, *far = [
        plan(job(work, 24 * days, **task), hourly([20, 900] * 12 * days), START) for days in (10, 15, 36, 90, 400)
    ]
    assert near.saving > 0.9
    for answer in far:
        assert answer.slots == near.slots


def test_long_deadline_uses_the_clean_hours_of_many_days():
    values = [100 if hour % 24 == 12 else 400 for hour in range(48)]
    answer = plan(job(40, 24 * 60, resume_cost=0.0), hourly(values), START)
    used = {slot.intensity for slot in answer.slots if slot.action == "run"}
    # Slots of more than an hour contain the hours around the clean one: 28 days have slots of an hour.
    assert sum(slot.intensity == 100 for slot in answer.slots if slot.action == "run") == 28
    assert used == {100, 250}


def test_finer_slots_of_a_shorter_horizon_are_kept_if_they_emit_less():
    """Slots of 5 minutes alternate for four days; a plan of more than 800 slots has hours after the first day."""
    values = np.full(12 * 96, 900.0)
    values[12 * 24 + 1 :: 2] = 20.0
    forecast = Forecast([START + timedelta(minutes=5 * index) for index in range(len(values))], values)
    task = {"resume_cost": 0.0, "state": "out"}
    near, far = (plan(job(2, hours, **task), forecast, START) for hours in (60, 90))
    assert near.gco2e_per_kw == pytest.approx(2 * 20)
    assert far.slots == near.slots


def test_delay_price_limits_the_wait():
    values = [500] * 6 + [100] * 6 + [500] * 12
    cheap = plan(Job(4, delay_price=10.0), hourly(values), START)
    assert cheap.slots[0].action == "exit"
    expensive = plan(Job(4, delay_price=1000.0), hourly(values), START)
    assert actions(expensive) == "RRRR"


def test_delay_price_makes_throttling_follow_the_intensity():
    levels = (Level(1, 1), Level(0.6, 0.8))
    answer = plan(Job(6, levels=levels, delay_price=300.0, pauses=frozenset()), hourly([50, 900] * 12), START)
    chosen = {slot.intensity: slot.action for slot in answer.slots}
    assert chosen == {50: "run", 900: "throttle"}
