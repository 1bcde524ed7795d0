"""Replay recorded carbon intensities to compare scheduling policies (pure NumPy)."""

from lightning_green.backtest.backtest import POLICIES, Backtest
from lightning_green.backtest.observation import View
from lightning_green.backtest.planner_policy import PlannerPolicy
from lightning_green.backtest.simulator import Simulator
from lightning_green.backtest.zone_archive import Archive, read_archive

__all__ = [
    "POLICIES",
    "Archive",
    "Backtest",
    "PlannerPolicy",
    "Simulator",
    "View",
    "read_archive",
]
