"""Plan from the newest forecast of a grid signal; used by the training process and by the supervisor."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correct import correct
from lightning_green.planning.forecasting.forecast_archive import ForecastArchive
from lightning_green.planning.job import Job
from lightning_green.planning.planner import MAX_HORIZON_HOURS, MAX_WAIT_WITHOUT_DEADLINE, plan
from lightning_green.planning.plans import Plan

MIN_HORIZON_HOURS = 1.0


class ForecastSource(Protocol):
    """A source of forecasts, such as a `GridSignal`."""

    @property
    def zone(self) -> str | None:
        """Grid zone, or None."""

    @property
    def source(self) -> str:
        """Short name of the source."""

    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        """Return the forecast from ``now`` to ``now + horizon`` that is available at ``now``, or None."""


def live_plan(source: ForecastSource, job: Job, archive: ForecastArchive, now: datetime) -> Plan:
    """Return a plan from the newest forecast of ``source``, corrected by the earlier ones in ``archive``.

    A forecast with an issue time after ``now`` (its server's clock is ahead) is treated as issued at ``now``.

    Args:
        source: Source of the forecasts.
        job: Remaining work, deadline and costs.
        archive: Earlier forecasts of the source. The newest forecast is added to it.
        now: Current time, aware.

    Raises:
        ValueError: If ``now`` is naive.

    Examples:
        ```python
        archive = ForecastArchive(run_dir / FORECAST_ARCHIVE_FILE)
        answer = live_plan(grid, job, archive, clock.now())
        print(answer.reason)
        ```

    """
    hours = 2 * job.work_hours + MAX_WAIT_WITHOUT_DEADLINE
    if job.deadline is not None:
        hours = (job.deadline - now) / timedelta(hours=1)
    hours = min(max(hours, MIN_HORIZON_HOURS), MAX_HORIZON_HOURS)
    forecast = source.forecast(now, timedelta(hours=hours))
    if forecast is None:
        return plan(job, None, now)
    if forecast.issued_at is not None and forecast.issued_at > now:
        forecast = replace(forecast, issued_at=now)
    grid = source.zone or source.source
    issuances, daily = archive.issuances(grid, forecast.kind), archive.daily_correction(grid, forecast.kind)
    corrected = correct(archive.extend_history(grid, forecast), issuances, now, daily)
    archive.add(grid, forecast)
    return plan(job, corrected, now)
