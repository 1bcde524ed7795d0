"""Correct carbon-intensity forecasts with the errors of earlier ones (pure NumPy)."""

from lightning_green.planning.forecasting.correct import correct, remember
from lightning_green.planning.forecasting.forecast_archive import FORECAST_ARCHIVE_FILE, ForecastArchive

__all__ = [
    "FORECAST_ARCHIVE_FILE",
    "ForecastArchive",
    "correct",
    "remember",
]
