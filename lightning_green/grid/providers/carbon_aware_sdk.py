"""The self-hosted web API of the Green Software Foundation's Carbon Aware SDK."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from typing_extensions import override

from lightning_green.grid.errors import NoDataError, WrongZoneError
from lightning_green.grid.live import (
    MAX_AGE,
    Answer,
    LiveSignal,
    Query,
    collect_points,
    floor_time,
    format_minutes,
    parse_list,
    parse_time,
    parse_value,
    require_points,
    truncate_text,
)
from lightning_green.grid.signal import SignalKind
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.http.url import check_url


class CarbonAwareSdkSignal(LiveSignal):
    """The source behind a self-hosted Carbon Aware SDK, in gCO2/kWh.

    Args:
        location: Name of the location in the SDK, for example ``"eastus"``.
        kind: Definition of the values: ``"average/lifecycle"`` for Electricity Maps, ``"marginal/direct"`` for
            WattTime. The SDK does not provide it.
        url: Address of the web API.
        resolution: Interval between two values of the source.
        max_age: Values older than this are not used for the present.

    Raises:
        ValueError: If ``location``, ``kind``, ``url`` or ``resolution`` cannot be read.

    Examples:
        ```python
        grid = CarbonAwareSdkSignal("westeurope", kind="average/lifecycle", url="http://carbon.example:8080")
        ```

    """

    def __init__(
        self, location: str, kind: str, url: str, resolution: str | timedelta = "1h", max_age: str = MAX_AGE
    ) -> None:
        if not isinstance(location, str) or not location.strip():
            raise ValueError(f'`location` should be a location such as "eastus", got {location!r}.')
        self.url = check_url(url).rstrip("/")
        step = parse_duration(resolution, "resolution")
        if step < timedelta(minutes=1):
            raise ValueError(f"`resolution` should be a minute or more, got {resolution!r}.")
        arguments = {"location": location, "kind": kind, "url": url, "max_age": max_age}
        arguments["resolution"] = f"{step.total_seconds():g}s"
        super().__init__("carbon-aware-sdk", location.strip(), SignalKind.parse(kind), step, arguments, max_age)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        location, base = str(self.zone), f"{self.url}/emissions"
        end = floor_time(now, self.step) + self.step
        past = {"location": location, "time": format_minutes(end - timedelta(days=1)), "toTime": format_minutes(end)}
        name = f"{base}/bylocations"
        return (
            Query("now", name, self.step, partial(parse_emissions, location=location), past, f"{name} {location}"),
            Query(
                "forecast",
                f"{base}/forecasts/current",
                self.step,
                partial(parse_forecast, location=location),
                {"location": location},
                optional=True,
            ),
        )


def parse_emissions(body: Any, location: str) -> Answer:
    """Parse the answer of ``/emissions/bylocations``."""
    rows = parse_list(body)
    for row in rows:
        _check(row.get("location"), location)
    points = collect_points((parse_time(row.get("time")), parse_value(row.get("rating")), "measured") for row in rows)
    return require_points(Answer(past=points))


def parse_forecast(body: Any, location: str) -> Answer:
    """Parse the answer of ``/emissions/forecasts/current``: a list with one forecast for the one location."""
    rows = parse_list(body)
    if not rows:
        raise NoDataError("the Carbon Aware SDK has no forecast")
    forecast = rows[0]
    _check(forecast.get("location"), location)
    points = collect_points(
        (parse_time(row.get("timestamp")), parse_value(row.get("value")), "forecast")
        for row in parse_list(forecast, "forecastData")
    )
    return require_points(Answer(forecast=points, issued_at=parse_time(forecast.get("generatedAt"))))


def _check(answered: Any, asked: str) -> None:
    # The zone of an answer is not used: the grid behind the SDK has another name than the location.
    if isinstance(answered, str) and answered.casefold() != asked.casefold():
        raise WrongZoneError(f"the Carbon Aware SDK was asked for {asked} and answers for {truncate_text(answered)}")
