"""A plain HTTP address with JSON behind it, as a site may run for itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from typing_extensions import override

from lightning_green.grid.live.answer import (
    Answer,
    Point,
    Query,
    items,
    ordered,
    read_time,
    read_unix,
    read_value,
    whole,
)
from lightning_green.grid.live.signal import MAX_AGE, LiveSignal
from lightning_green.grid.signal import SignalKind
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.http.errors import UnreadableError
from lightning_green.utilities.http.secret import Secret, read_secret
from lightning_green.utilities.http.transport import Transport

TOKEN_VARIABLE = "LIGHTNING_GREEN_GRID_TOKEN"  # noqa: S105  (the name of a variable)


class HttpJsonSignal(LiveSignal):
    """Carbon intensity from any address that answers with JSON.

    The names of the fields are paths of keys and positions, joined by dots: ``"data.0.intensity.actual"``. Times are
    ISO 8601 (UTC where they do not say) or seconds since the epoch. If ``LIGHTNING_GREEN_GRID_TOKEN`` is set (or
    ``token_file`` given), it is sent as ``Authorization: Bearer``.

    Args:
        url: The address; no credential belongs into it.
        zone: Grid zone that it speaks for, or None.
        kind: What the number means.
        value: Path of the present value.
        time: Path of the time that it is true for; None to take the time of the answer.
        forecast: Path of a list of predictions, or None.
        forecast_value: Path of the value within each of them.
        forecast_time: Path of the time within each of them.
        zone_field: Path of the zone in the answer, which must then be the same as ``zone``; None where there is none.
        factor: What to multiply with to get gCO2e/kWh.
        resolution: How often the value changes.
        token_file: A file that holds the token; None for the environment.
        max_age: Values older than this are not taken for "now".

    Raises:
        ValueError: If an argument cannot be read.

    Example::

        HttpJsonSignal("http://meter.example/co2", zone="DE", value="now.g_per_kwh", time="now.at")

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
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ValueError(f"`url` should begin with http:// or https://, got {url!r}.")
        if "@" in url.split("//", 1)[1].split("/", 1)[0]:
            raise ValueError(f"`url` should hold no password; set {TOKEN_VARIABLE} or `token_file` instead.")
        if not factor > 0:
            raise ValueError(f"`factor` should be above 0, got {factor!r}.")
        step = parse_duration(resolution, "resolution")
        if step < timedelta(seconds=10):
            raise ValueError(f"`resolution` should be ten seconds or more, got {resolution!r}.")
        self.url = url
        self.token_file = token_file
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
        super().__init__("http", zone, SignalKind.parse(kind), step, arguments, max_age)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        return (Query("now", self.url, self.step, partial(parse_body, fields=self.fields, now=now)),)

    @override
    def credential(self) -> Secret | None:
        if self.token_file is None and not os.environ.get(TOKEN_VARIABLE):
            return None
        return read_secret(TOKEN_VARIABLE, self.token_file)

    @override
    def headers(self, transport: Transport, *, renew: bool) -> dict[str, str]:
        secret = self.credential()
        return {} if secret is None else {"Authorization": f"Bearer {secret.reveal()}"}


class Fields:
    """Where the values are in a body.

    Args:
        value: Path of the present value.
        time: Path of its time, or None.
        forecast: Path of the list of predictions, or None.
        forecast_value: Path of the value in each.
        forecast_time: Path of the time in each.
        zone: Path of the zone, or None.
        factor: What to multiply with to get gCO2e/kWh.

    """

    def __init__(
        self,
        value: str,
        time: str | None,
        forecast: str | None,
        forecast_value: str,
        forecast_time: str,
        zone: str | None,
        factor: float,
    ) -> None:
        self.value, self.time, self.forecast = value, time, forecast
        self.forecast_value, self.forecast_time = forecast_value, forecast_time
        self.zone, self.factor = zone, factor


def parse_body(body: Any, fields: Fields, now: datetime) -> Answer:
    """Read a body.

    Args:
        body: Decoded JSON.
        fields: Where the values are.
        now: Time of the answer, for a value that comes without one.

    """
    value = read_value(at_path(body, fields.value), fields.factor)
    time = now if fields.time is None else _time(at_path(body, fields.time))
    points = [] if value is None or time is None else [Point(time, value)]
    ahead = []
    if fields.forecast is not None:
        for row in items(at_path(body, fields.forecast)):
            start = _time(at_path(row, fields.forecast_time))
            predicted = read_value(at_path(row, fields.forecast_value), fields.factor)
            if start is not None and predicted is not None:
                ahead.append(Point(start, predicted, "forecast"))
    zone = None if fields.zone is None else at_path(body, fields.zone)
    if fields.zone is not None and not isinstance(zone, str):
        raise UnreadableError(f"the answer has no zone at `{fields.zone}`")
    return whole(Answer(past=tuple(points), forecast=ordered(ahead), zone=zone))


def at_path(body: Any, path: str) -> Any:
    """Return what lies at ``path`` of keys and positions, None where there is nothing.

    Example::

        >>> at_path({"data": [{"now": 3}]}, "data.0.now")
        3

    """
    for part in path.split("."):
        if isinstance(body, Mapping):
            body = body.get(part)
        elif isinstance(body, list) and part.isascii() and part.isdigit() and int(part) < len(body):
            body = body[int(part)]
        else:
            return None
    return body


def _time(raw: Any) -> datetime | None:
    return read_time(raw) or read_unix(raw)
