"""Pure numbers: a job and a forecast in, a plan out. No torch, no Lightning, no network, no clock."""

from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correct import correct, remember
from lightning_green.planning.forecasting.forecast_archive import ISSUES_FILE, Issues
from lightning_green.planning.job import Job, Level
from lightning_green.planning.live import job_from_record, job_record, live_plan
from lightning_green.planning.plan import Plan, Slot
from lightning_green.planning.planner import plan

__all__ = [
    "ISSUES_FILE",
    "Forecast",
    "Issues",
    "Job",
    "Level",
    "Plan",
    "Slot",
    "correct",
    "job_from_record",
    "job_record",
    "live_plan",
    "plan",
    "remember",
]
