"""The planner saves emissions on recorded grids with their published forecasts."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_green.backtest.backtest import Backtest
from lightning_green.backtest.results import OPTIMAL
from lightning_green.backtest.zone_archive import read_archive

CARBON = Path(os.environ.get("LIGHTNING_GREEN_DATA", "")) / "carbon"
ZONES = ("DE", "PL", "SE", "US-CAL-CISO", "US-MIDA-PJM")
EXIT = Backtest(every_days=20)
HOLD = replace(EXIT, pauses=frozenset({"hold"}), resume_hours=0.0)

pytestmark = pytest.mark.skipif(
    not CARBON.is_dir(), reason="needs recorded grids: set LIGHTNING_GREEN_DATA to a directory that contains `carbon`"
)


@pytest.fixture(scope="module")
def grids():
    return {
        (zone, scope): read_archive(CARBON / f"{zone}_2021.csv", CARBON / "forecasts" / f"{zone}_2021_96h.csv", scope)
        for zone in ZONES
        for scope in ("lifecycle", "direct")
    }


@pytest.mark.parametrize("scope", ["lifecycle", "direct"])
def test_planner_saves_most_of_the_optimum_and_meets_deadlines(grids, scope):
    saved, best = 0.0, 0.0
    for zone in ZONES:
        result = EXIT.run(grids[zone, scope], ["planner"])
        assert result["planner"]["deadline_misses"] == 0
        assert result["planner"]["saving_pct"] > 0
        saved, best = saved + result["planner"]["saving_pct"], best + result[OPTIMAL]["saving_pct"]
    assert saved >= 0.8 * best


@pytest.mark.parametrize("zone", ZONES)
def test_hold_only_planner_does_not_increase_emissions(grids, zone):
    result = HOLD.run(grids[zone, "lifecycle"], ["planner", "threshold"])
    assert result["planner"]["saving_pct"] >= -0.3
    assert result["planner"]["deadline_misses"] == 0
    assert result["threshold"]["saving_pct"] < 0, "the threshold policy increases emissions"
