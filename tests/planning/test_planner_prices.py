"""Plans with electricity prices minimize the cost of electricity and carbon, and report true emissions."""

import itertools
import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from lightning_green.planning import ForecastArchive, Job, Level, PriceSeries, live_plan, plan
from tests.helpers.plans import START, actions, cost_of, hourly, job


def prices(values, minutes=60):
    return PriceSeries.from_points([(START + timedelta(minutes=minutes * n), price) for n, price in enumerate(values)])


def taken_actions(answer, task):
    taken = [task.levels.index(slot.level) if slot.level else slot.action for slot in answer.slots]
    return taken + [0] * (6 - len(taken))


@pytest.mark.parametrize("seed", range(30))
def test_plan_equals_brute_force_minimum_of_both(seed):
    """No sequence of actions in six slots costs less; half of the prices are negative in every third case."""
    rng = np.random.default_rng(seed)
    values, price = rng.uniform(20, 600, 6), rng.uniform(-0.3 if seed % 3 else 0.0, 0.3, 6)
    carbon_price = float(rng.choice([0.0, 0.1, 1.0]))
    task = job(
        float(rng.integers(10, 45) / 10),
        6,
        levels=(Level(1, 1), Level(0.78, 0.9)) if seed % 2 else (Level(1, 1),),
        hold_power=float(rng.choice([0.0, 0.1, 0.3])),
        resume_cost=float(rng.choice([0.0, 0.1, 0.5])),
        exit_cost=float(rng.choice([0.0, 0.2])),
        hold_cost=float(rng.choice([0.0, 0.05])),
        hold_resume_cost=float(rng.choice([0.0, 0.05])),
        prices=prices(price),
        carbon_price=carbon_price,
    )
    both = price + carbon_price * values / 1000
    choices = [*range(len(task.levels)), "hold", "exit"]
    costs = (cost_of(way, both, task.work_hours, task) for way in itertools.product(choices, repeat=6))
    least = min(cost for cost in costs if cost is not None)
    answer = plan(task, hourly(values), START)
    taken = taken_actions(answer, task)
    assert cost_of(taken, both, task.work_hours, task) == pytest.approx(least, rel=1e-9, abs=1e-12)
    # emissions and cost are those of the actions, not of the mixture
    assert answer.gco2e_per_kw == pytest.approx(cost_of(taken, values, task.work_hours, task))
    assert answer.cost_per_kw == pytest.approx(cost_of(taken, price, task.work_hours, task), abs=1e-12)
    assert answer.run_now_gco2e_per_kw == pytest.approx(cost_of([0] * 6, values, task.work_hours, task))
    assert answer.run_now_cost_per_kw == pytest.approx(cost_of([0] * 6, price, task.work_hours, task), abs=1e-12)


def test_cost_alone_follows_the_price():
    task = job(2, 6, resume_cost=0.0, prices=prices([0.4, 0.4, 0.4, 0.4, 0.1, 0.1]), carbon_price=0.0)
    answer = plan(task, hourly([50, 50, 400, 400, 400, 400]), START)
    assert actions(answer) == "XXXXRR"
    assert answer.saving == pytest.approx(-7.0)  # of the emissions
    assert (answer.cost_per_kw, answer.run_now_cost_per_kw) == (pytest.approx(0.2), pytest.approx(0.8))
    assert answer.reason == (
        "Exit until 04:00 UTC: 50 -> 400 gCO2e/kWh for the remaining work, emits about 700.0% more; "
        "electricity cost -75.0%. Ends at 06:00 UTC, 0 min before the deadline."
    )


def test_high_carbon_price_follows_the_carbon():
    values, price = [500, 500, 100, 100, 500, 500], [0.4, 0.4, 0.4, 0.4, 0.1, 0.1]
    task = job(2, 6, resume_cost=0.0, prices=prices(price), carbon_price=100.0)
    assert actions(plan(task, hourly(values), START)) == "XXRR"
    # at 0.1 per kg, 400 g are worth 0.04, less than the 0.3 that waiting longer saves
    assert actions(plan(replace(task, carbon_price=0.1), hourly(values), START)) == "XXXXRR"


def test_constant_price_changes_no_decision_of_equal_energy():
    values = [500, 400, 300, 100, 200, 600]
    task = job(2, 6, resume_cost=0.0)
    priced = replace(task, prices=PriceSeries(constant=0.3), carbon_price=0.1)
    assert actions(plan(priced, hourly(values), START)) == actions(plan(task, hourly(values), START))


def test_constant_price_counts_the_energy_of_pauses():
    """A constant for each kWh is not ignored: it makes the energy of a restart more expensive."""
    values = [200, 100, 100, 100]
    task = job(1, 4, resume_cost=0.5, pauses={"exit"}, prices=PriceSeries(constant=0.0), carbon_price=0.1)
    assert actions(plan(task, hourly(values), START))[0] == "X"
    assert actions(plan(replace(task, prices=PriceSeries(constant=0.3)), hourly(values), START)) == "R"


def test_slots_end_where_the_price_changes():
    quarters = prices([0.4, 0.4, 0.1, 0.1] * 4, minutes=15)
    answer = plan(job(1, 4, resume_cost=0.0, prices=quarters, carbon_price=0.0), hourly([300] * 4), START)
    assert answer.cost_per_kw == pytest.approx(0.1)
    assert {slot.price for slot in answer.slots if slot.action == "run"} == {0.1}


def test_hours_after_the_last_price_are_reported_as_estimates():
    day = [0.1 if hour == 5 else 0.3 for hour in range(24)]
    task = job(1, 48, resume_cost=0.0, prices=prices(day), carbon_price=0.0)
    answer = plan(task, hourly([300] * 48), START)
    assert answer.notes[-1].startswith("Prices are known for 24 h of 48 h; the others are estimates")
    assert "electricity cost -66.7% (some prices are estimates). Ends at 06:00 UTC" in answer.reason


def test_reason_to_run_names_both():
    task = job(1, 3, prices=prices([0.1, 0.2, 0.3]), carbon_price=0.1)
    reason = plan(task, hourly([100, 200, 300]), START).reason
    assert reason == (
        "Run now: at 100 gCO2e/kWh and an electricity price of 0.1000 per kWh no pause before the deadline reduces the "
        "cost of electricity and carbon."
    )


def test_amounts_are_those_of_the_whole_job():
    task = job(2, 6, resume_cost=0.0, full_kw=10.0, prices=prices([0.4] * 4 + [0.1] * 2), carbon_price=0.0)
    assert "electricity cost 8.00 -> 2.00 (-75.0%)" in plan(task, hourly([300] * 6), START).reason


def test_negative_cost_of_run_now_has_no_percentage():
    task = job(1, 3, resume_cost=0.0, pauses={"exit"}, prices=prices([-0.1, -0.3, 0.0]), carbon_price=0.0)
    assert "electricity cost -0.1000 -> -0.3000 per kW of full power." in plan(task, hourly([300] * 3), START).reason


def test_min_saving_is_a_fraction_of_the_cost():
    task = job(1, 3, resume_cost=0.0, prices=prices([0.30, 0.27, 0.3]), carbon_price=0.0, min_saving=0.2)
    answer = plan(task, hourly([300] * 3), START)
    assert actions(answer) == "R"
    assert "save 10.0% of the run-now cost of electricity and carbon, less than the 20.0%" in answer.reason


def test_delay_has_the_price_of_its_emissions():
    task = Job(1.0, delay_price=100.0, resume_cost=0.0, prices=prices([0.3] * 5 + [0.1] * 2), carbon_price=0.1)
    # five hours of delay cost 5 x 100 g x 0.1 / kg = 0.05, less than the 0.2 that they save
    assert actions(plan(task, hourly([300] * 97), START)) == "XXXXXR"
    assert actions(plan(replace(task, delay_price=1000.0), hourly([300] * 97), START)) == "R"


def test_job_with_prices_survives_json():
    task = job(2, 6, resume_cost=0.0, prices=prices([0.4] * 4 + [0.1] * 2), carbon_price=0.2)
    again = Job.from_json(json.loads(json.dumps(task.to_json(START.timestamp()))), "out")
    assert again.carbon_price == 0.2
    forecast = hourly([300] * 6)
    assert actions(plan(again, forecast, START)) == actions(plan(replace(task, state="out"), forecast, START))
    assert Job.from_json({"work_hours": 1.0}, "out").prices is None


def test_plan_of_an_exited_job_includes_the_return():
    task = job(1, 6, resume_cost=0.0, return_time=1.0, out_power=0.5, state="out", prices=prices([0.4] * 6))
    answer = plan(task, hourly([300] * 6), START)
    assert answer.cost_per_kw == pytest.approx(0.5 * 0.4 + 0.4)
    assert answer.slots[0].price == pytest.approx(0.4)


def test_live_plan_uses_the_prices_of_the_job():
    class Grid:
        zone, source = "DE", "test"

        def forecast(self, now, horizon):
            return hourly([300] * 6)

    task = job(2, 6, resume_cost=0.0, prices=prices([0.4] * 4 + [0.1] * 2))
    assert actions(live_plan(Grid(), task, ForecastArchive(), START)) == "XXXXRR"


def test_uncertain_intensity_is_weighed_by_its_price():
    forecast = hourly([300, 280, 300, 300], spread=[0.0, 200.0, 200.0, 200.0])
    task = job(1, 4, pauses={"hold"}, hold_power=0.0, prices=PriceSeries(constant=0.1), carbon_price=0.1)
    answer = plan(task, forecast, START)
    assert actions(answer) == "R"
    assert "run-now cost of electricity and carbon, which is within the uncertainty" in answer.reason
    cheaper = replace(task, prices=prices([0.3, 0.1, 0.3, 0.3]))
    assert actions(plan(cheaper, forecast, START)) == "HR"


def test_job_without_a_deadline_does_not_hold_for_negative_prices():
    task = Job(
        work_hours=2, deadline=None, delay_price=5.0, hold_power=0.5, prices=prices([-0.05] * 96), carbon_price=0.02
    )
    answer = plan(task, hourly([100.0] * 96), START)
    assert actions(answer)[:2] == "RR"


def test_prices_of_every_minute_have_slots_of_five_minutes():
    rng = np.random.default_rng(0)
    task = job(3, 12, prices=prices(rng.uniform(0.1, 0.5, 720), minutes=1), carbon_price=0.0)
    answer = plan(task, hourly([100.0] * 12), START)
    assert len(answer.slots) <= 12 * 12 + 12
