"""Any HTTP address that returns JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from typing_extensions import override

from lightning_green.grid.live import (
    MAX_AGE,
    Answer,
    LiveSignal,
    Query,
    TokenAuthentication,
    collect_points,
    parse_list,
    parse_time,
    parse_unix_time,
    parse_value,
    require_points,
)
from lightning_green.grid.signal import SignalKind
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.http.bodies import at_path
from lightning_green.utilities.http.errors import UnreadableError
from lightning_green.utilities.http.url import check_url

TOKEN_VARIABLE = "LIGHTNING_GREEN_GRID_TOKEN"  # noqa: S105  (the name of a variable)


class HttpJsonSignal(LiveSignal):
    """Carbon intensity from any address that returns JSON.

    Fields are named by paths of keys and positions, joined by dots: ``"data.0.intensity.actual"``. Times are ISO 8601
    (naive times are UTC) or seconds since the epoch. If ``LIGHTNING_GREEN_GRID_TOKEN`` is set (or
    ``token_file`` given), it is sent as ``Authorization: Bearer``.

    Args:
        url: Address, without a credential.
        zone: Grid zone of the values, or None.
        kind: Definition of the values.
        value: Path of the present value.
        time: Path of its time; None to use the time of the request.
        forecast: Path of a list of predictions, or None.
        forecast_value: Path of the value within each of them.
        forecast_time: Path of the time within each of them.
        zone_field: Path of the zone, which must equal ``zone``; None if the answer names no zone.
        factor: Factor from the unit of the values to gCO2e/kWh.
        resolution: Interval between two values.
        token_file: File that contains the token; None for the environment.
        max_age: Values older than this are not used for the present.

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        ```python
        HttpJsonSignal("http://meter.example/co2", zone="DE", value="now.g_per_kwh", time="now.at")
        ```

    """

    def __init__(
        self,
        url: str,
        zone: str | None = None,
        kind: str = "average/lifecycle",
        value: str = "carbonIntensity",
        time: str | None = "datetime",
        forecast: str | None = None,
        forecast_value: str = "carbonIntensity",
        forecast_time: str = "datetime",
        zone_field: str | None = None,
        factor: float = 1.0,
        resolution: str | timedelta = "1h",
        token_file: str | None = None,
        max_age: str = MAX_AGE,
    ) -> None:
        step = check_arguments(url, factor, resolution)
        self.url = url
        self.fields = Fields(value, time, forecast, forecast_value, forecast_time, zone_field, factor)
        arguments = {
            "url": url,
            "zone": zone,
            "kind": kind,
            "value": value,
            "time": time,
            "forecast": forecast,
            "forecast_value": forecast_value,
            "forecast_time": forecast_time,
            "zone_field": zone_field,
            "factor": factor,
            "resolution": f"{step.total_seconds():g}s",
            "token_file": token_file,
            "max_age": max_age,
        }
        token = TokenAuthentication(TOKEN_VARIABLE, token_file, required=False)
        super().__init__("http", zone, SignalKind.parse(kind), step, arguments, max_age, token)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        return (Query("now", self.url, self.step, partial(parse_body, fields=self.fields, now=now)),)


def check_arguments(url: str, factor: float, resolution: str | timedelta) -> timedelta:
    """Check the arguments that every self-hosted service has, and return the resolution.

    Raises:
        ValueError: If one of them is invalid.

    """
    check_url(url, TOKEN_VARIABLE)
    if not factor > 0:
        raise ValueError(f"`factor` should be above 0, got {factor!r}.")
    step = parse_duration(resolution, "resolution")
    if step < timedelta(seconds=10):
        raise ValueError(f"`resolution` should be ten seconds or more, got {resolution!r}.")
    return step


@dataclass(frozen=True)
class Fields:
    """Paths of the values in a body.

    Args:
        value: Path of the present value.
        time: Path of its time, or None.
        forecast: Path of the list of predictions, or None.
        forecast_value: Path of the value in each prediction.
        forecast_time: Path of the time in each prediction.
        zone: Path of the zone, or None.
        factor: Factor from the unit of the values to gCO2e/kWh.

    """

    value: str
    time: str | None
    forecast: str | None
    forecast_value: str
    forecast_time: str
    zone: str | None
    factor: float


def parse_body(body: Any, fields: Fields, now: datetime) -> Answer:
    """Parse a body.

    Args:
        body: Decoded JSON.
        fields: Paths of the values.
        now: Time of the request, for a value without a time.

    """
    value = parse_value(at_path(body, fields.value), fields.factor)
    time = now if fields.time is None else _time(at_path(body, fields.time))
    rows = [] if fields.forecast is None else parse_list(at_path(body, fields.forecast))
    ahead = collect_points(
        (
            _time(at_path(row, fields.forecast_time)),
            parse_value(at_path(row, fields.forecast_value), fields.factor),
            "forecast",
        )
        for row in rows
    )
    zone = None if fields.zone is None else at_path(body, fields.zone)
    if fields.zone is not None and not isinstance(zone, str):
        raise UnreadableError(f"the answer has no zone at `{fields.zone}`")
    return require_points(Answer(past=collect_points([(time, value, "measured")]), forecast=ahead, zone=zone))


def _time(raw: Any) -> datetime | None:
    return parse_time(raw) or parse_unix_time(raw)
