"""Correct forecasts with what earlier forecasts got wrong (pure NumPy)."""

from lightning_green.planning.forecasting.correct import correct, remember
from lightning_green.planning.forecasting.forecast_archive import ISSUES_FILE, Issues

__all__ = [
    "ISSUES_FILE",
    "Issues",
    "correct",
    "remember",
]
