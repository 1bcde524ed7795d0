"""Plan a job from a carbon-intensity forecast (pure NumPy): no torch, no Lightning, no network, no clock."""

from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correct import correct, remember
from lightning_green.planning.forecasting.forecast_archive import FORECAST_ARCHIVE_FILE, ForecastArchive
from lightning_green.planning.job import Job, Level
from lightning_green.planning.live_planner import live_plan
from lightning_green.planning.planner import plan
from lightning_green.planning.plans import Plan, Slot
from lightning_green.planning.prices import PriceSeries

__all__ = [
    "FORECAST_ARCHIVE_FILE",
    "Forecast",
    "ForecastArchive",
    "Job",
    "Level",
    "Plan",
    "PriceSeries",
    "Slot",
    "correct",
    "live_plan",
    "plan",
    "remember",
]
