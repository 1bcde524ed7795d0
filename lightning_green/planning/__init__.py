"""Pure numbers: a job and a forecast in, a plan out. No torch, no Lightning, no network, no clock."""

from lightning_green.planning.correct import correct, remember
from lightning_green.planning.forecast import Forecast
from lightning_green.planning.job import Job, Level
from lightning_green.planning.plan import Plan, Slot
from lightning_green.planning.planner import plan

__all__ = ["Forecast", "Job", "Level", "Plan", "Slot", "correct", "plan", "remember"]
