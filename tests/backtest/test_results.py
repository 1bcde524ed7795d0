"""Figures of a backtest and their mean over zones."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_green.backtest import Backtest
from lightning_green.backtest.results import OPTIMAL, mean_of
from tests.helpers.zone_archives import make_archive


def test_share_is_none_without_an_optimal_saving_and_the_mean_share_is_a_ratio():
    flat = replace(make_archive(days=9), actual=np.full(9 * 24, 100.0))
    nothing = Backtest(work_hours=6, window_hours=14, every_days=5).run(flat, ["run_now"])
    assert nothing["run_now"]["share_of_optimal"] is None
    row = {"worse_than_run_now_pct": 0.0, "mean_delay_hours": 0.0, "deadline_misses": 1, "exits_per_run": 0.0}
    zones = [
        {"zone": zone, "runs": 2, "policies": {
            "planner": {**row, "saving_pct": saving, "share_of_optimal": None},
            OPTIMAL: {**row, "saving_pct": best, "share_of_optimal": None},
        }}
        for zone, saving, best in (("a", 0.1, 0.2), ("b", 6.0, 10.0))
    ]  # fmt: skip
    mean = mean_of(zones)
    assert mean["policies"]["planner"]["share_of_optimal"] == pytest.approx(6.1 / 10.2)
    assert mean["policies"]["planner"]["deadline_misses"] == 2
    assert mean["runs"] == 4
