"""The planner as a policy: corrected forecasts, caution and states."""

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest

from lightning_green.backtest import build_policy
from lightning_green.backtest.backtest import Backtest
from lightning_green.backtest.planner_policy import HistoryOnlyPlannerPolicy, PlannerPolicy
from lightning_green.backtest.replay import observe
from lightning_green.planning import Level
from tests.helpers.zone_archives import FIRST, make_archive

SHORT = Backtest(work_hours=6, window_hours=14, every_days=5)
ZONE = make_archive(days=16, bias=150.0, wind=5.0)
HOUR = FIRST + 10 * 24


def observation(zone=ZONE, hour=HOUR, scenario=SHORT, state="run"):
    job = scenario.simulator()
    if state != "run":
        job.step(state, 1.0, 100.0)
    return observe(scenario, zone, hour, job, scenario.window_hours, None)


def forecast(policy, seen):
    return policy.forecast(seen, datetime.fromtimestamp(seen.hour * 3600, timezone.utc))


def test_published_forecast_is_corrected_unless_disabled():
    seen = observation()
    actual = ZONE.actual[HOUR - FIRST : HOUR - FIRST + 14]
    raw, better = forecast(PlannerPolicy(correct=False), seen), forecast(PlannerPolicy(), seen)
    assert raw.values == pytest.approx(seen.outlook())
    assert raw.spread is None
    assert len(better.times) == len(raw.times) == 14
    assert (better.spread > 0).all()
    assert np.abs(better.values - actual).mean() < 0.5 * np.abs(raw.values - actual).mean()


def test_history_only_planner_ignores_the_forecasts():
    policy, other = HistoryOnlyPlannerPolicy(), HistoryOnlyPlannerPolicy()
    wrong = replace(ZONE, forecasts=ZONE.forecasts * 3)
    assert forecast(policy, observation()).values.tolist() == forecast(other, observation(wrong)).values.tolist()
    assert forecast(PlannerPolicy(), observation()).values.tolist() != (
        forecast(PlannerPolicy(), observation(wrong)).values.tolist()
    )


def test_first_action_of_the_plan_is_returned_with_its_level():
    night = observation(hour=HOUR)
    assert PlannerPolicy()(night) == ("exit", None), "the sun shines later"
    level = Level(0.5, 0.9)
    throttled = replace(SHORT, throttle=(level,), pauses=frozenset())
    assert PlannerPolicy()(observation(scenario=throttled)) == ("throttle", level)


def test_caution_replaces_the_default_of_the_job():
    assert PlannerPolicy(caution=0.0)(observation())[0] == "exit"
    assert PlannerPolicy(caution=100.0)(observation())[0] == "run"


@pytest.mark.parametrize(("state", "action"), [("run", "hold"), ("hold", "hold"), ("exit", "exit")])
def test_exited_job_stays_exited_where_another_job_holds(state, action):
    costly_exit = replace(SHORT, hold_power=0.0, resume_hours=0.5)
    assert PlannerPolicy()(observation(scenario=costly_exit, state=state)) == (action, None)


def test_planner_without_history_runs_now():
    zone = make_archive(days=16, forecasts=False)
    job = SHORT.replay(zone, FIRST, build_policy("planner"))
    assert job.hours == 6
