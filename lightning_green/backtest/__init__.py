"""Replay recorded carbon intensities to compare scheduling policies (pure NumPy)."""

from lightning_green.backtest.backtest import Backtest
from lightning_green.backtest.objectives import ObjectiveComparison, compare_objectives
from lightning_green.backtest.observation import Observation
from lightning_green.backtest.planner_policy import PlannerPolicy
from lightning_green.backtest.policies import Start
from lightning_green.backtest.registry import POLICIES, build_policy
from lightning_green.backtest.scenario import Scenario
from lightning_green.backtest.simulator import Simulator
from lightning_green.backtest.zone_archive import ZoneArchive, read_archive

__all__ = [
    "POLICIES",
    "Backtest",
    "ObjectiveComparison",
    "Observation",
    "PlannerPolicy",
    "Scenario",
    "Simulator",
    "Start",
    "ZoneArchive",
    "build_policy",
    "compare_objectives",
    "read_archive",
]
