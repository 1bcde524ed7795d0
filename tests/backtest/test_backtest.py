"""A backtest compares policies, meets every deadline and summarizes its runs."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_green.backtest import Backtest
from lightning_green.backtest.results import OPTIMAL
from lightning_green.planning import Level
from tests.helpers.zone_archives import make_archive

SHORT = Backtest(work_hours=6, window_hours=14, every_days=5)
THROTTLED = replace(SHORT, throttle=(Level(0.78, 0.9),))


@pytest.mark.parametrize(
    "test",
    [SHORT, THROTTLED, replace(SHORT, pauses=frozenset({"hold"}), resume_hours=0.0), replace(SHORT, work_hours=13.3),
     replace(SHORT, window_hours=10.5), replace(THROTTLED, work_hours=9.7, window_hours=10.0, lag_hours=2)],
)  # fmt: skip
def test_deadlines_are_met_and_no_policy_beats_the_optimum(test):
    result = test.run(make_archive(days=30, wind=120.0))
    assert set(result) == set(test.names)
    for name, row in result.items():
        assert row["deadline_misses"] == 0, name
        assert row["saving_pct"] <= result[OPTIMAL]["saving_pct"] + 1e-9, name
    assert result["run_now"]["saving_pct"] == 0
    assert result["run_now"]["mean_delay_hours"] == 0
    assert result[OPTIMAL]["worse_than_run_now_pct"] == 0


def test_infeasible_deadline_runs_at_once_and_counts_no_miss():
    result = replace(SHORT, work_hours=20.0).run(make_archive(days=16))
    assert all(row["mean_delay_hours"] == 0 and row["deadline_misses"] == 0 for row in result.values())


def test_planner_corrects_a_biased_forecast():
    """Forecasts are 150 gCO2e/kWh too low in the morning, which misleads policies without a correction."""
    zone = make_archive(days=40, bias=150.0, wind=20.0, solar=100.0)
    test = replace(SHORT, work_hours=8, window_hours=30, start_hour=3, every_days=2)
    result = test.run(zone, ["planner", "lowest_slots"])
    assert result["planner"]["saving_pct"] > result["lowest_slots"]["saving_pct"] + 2
    assert result["planner"]["saving_pct"] > 0.8 * result[OPTIMAL]["saving_pct"]


def test_summary_matches_hand_computed_figures():
    zone = replace(make_archive(days=9, forecasts=False), actual=np.full(9 * 24, 100.0))
    zone.actual[7 * 24 + 9 : 7 * 24 + 11] = 300.0
    test = Backtest(work_hours=4, window_hours=8, resume_hours=0.5, every_days=3)
    result = test.run(zone, ["run_now"])
    assert result[OPTIMAL]["saving_pct"] == pytest.approx(100 * (1 - 450 / 800))
    assert result[OPTIMAL]["mean_delay_hours"] == 2
    assert result[OPTIMAL]["exits_per_run"] == 1
    assert result[OPTIMAL]["share_of_optimal"] == 1
