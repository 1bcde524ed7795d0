"""WattTime, API version 3: marginal emissions."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from lightning_green.grid.errors import WrongUnitError
from lightning_green.grid.live.answer import (
    Answer,
    Point,
    Query,
    floor_time,
    items,
    mapping,
    minutes,
    ordered,
    read_time,
    read_value,
    shown,
    whole,
)
from lightning_green.grid.live.signal import MAX_AGE, LiveSignal
from lightning_green.grid.signal import SignalKind
from lightning_green.grid.zones import parse_place
from lightning_green.utilities.http.errors import RefusedError, UnreadableError
from lightning_green.utilities.http.secret import Secret, read_secret
from lightning_green.utilities.http.transport import Transport

USER_VARIABLE = "WATTTIME_USERNAME"
PASSWORD_VARIABLE = "WATTTIME_PASSWORD"  # noqa: S105  (the name of a variable)
G_PER_KWH = 0.45359237
"""Grams per kWh in one pound per MWh (the international pound is 453.59237 g)."""
_SIGNAL = "co2_moer"
_STEP = timedelta(minutes=5)
_REGION = re.compile(r"[A-Z0-9_-]{2,40}")
_TOKEN_SECONDS = 25 * 60.0  # a token lives for 30 minutes


class WattTimeSignal(LiveSignal):
    """Marginal carbon intensity (the plant that answers to one more kWh) with a forecast of 72 hours.

    It plans; emissions are accounted with an average signal, or labelled marginal. The user name and the password are
    read from ``WATTTIME_USERNAME`` and ``WATTTIME_PASSWORD`` (or a file); the token is kept in memory alone and renewed
    once where it has expired. The percentile of ``/v3/signal-index`` is no intensity and is never used.

    Args:
        zone: WattTime region such as ``"CAISO_NORTH"``, or ``"38.5,-121.5"``, for which the region is looked up.
        password_file: A file that holds the password; None for the environment.
        url: Address of the service.
        max_age: Values older than this are not taken for "now".

    Raises:
        ValueError: If ``zone`` cannot be read.

    Example::

        CarbonScheduler(grid=WattTimeSignal("CAISO_NORTH"), deadline="36h")

    """

    renewable = True

    def __init__(
        self,
        zone: str,
        password_file: str | None = None,
        url: str = "https://api.watttime.org",
        max_age: str = MAX_AGE,
    ) -> None:
        if not isinstance(zone, str) or not zone.strip():
            raise ValueError(
                f'`zone` should be a WattTime region such as "CAISO_NORTH" or "38.5,-121.5", got {zone!r}.'
            )
        self.place = parse_place(zone) if "," in zone else None
        self.region: str | None = zone.strip().upper() if self.place is None else None
        self.url = url.rstrip("/")
        self.password_file = password_file
        self._token: tuple[Secret, float] | None = None
        self._token_lock = threading.Lock()
        arguments = {"zone": zone, "password_file": password_file, "url": url, "max_age": max_age}
        super().__init__("watttime", self.region or zone, SignalKind("marginal", "direct"), _STEP, arguments, max_age)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        if self.region is None:
            assert self.place is not None
            params = {"latitude": f"{self.place.latitude:g}", "longitude": f"{self.place.longitude:g}"}
            place = {**params, "signal_type": _SIGNAL}
            return (Query("region", f"{self.url}/v3/region-from-loc", timedelta(days=1), self._learn_region, place),)
        forecast = {"region": self.region, "signal_type": _SIGNAL, "horizon_hours": "72"}
        end = floor_time(now, _STEP)
        past = {"region": self.region, "signal_type": _SIGNAL, "start": minutes(end - timedelta(days=1))}
        past["end"] = minutes(end)
        history, hour = f"{self.url}/v3/historical", timedelta(hours=1)
        identity = f"{history} {self.region}"
        return (
            Query("forecast", f"{self.url}/v3/forecast", _STEP, parse_forecast, forecast),
            Query("history", history, hour, parse_historical, past, identity=identity, optional=True),
        )

    @override
    def refresh(self, now: datetime | None = None, *, force: bool = False) -> list[str]:
        unknown = self.region is None
        failures = super().refresh(now, force=force)
        if unknown and self.region is not None:
            failures = super().refresh(now, force=force)  # the region is known now; ask for its values
        return failures

    @override
    def credential(self) -> Secret | None:
        user = read_secret(USER_VARIABLE)
        return Secret(f"{user.reveal()}:{read_secret(PASSWORD_VARIABLE, self.password_file).reveal()}")

    @override
    def headers(self, transport: Transport, *, renew: bool) -> dict[str, str]:
        with self._token_lock:
            now = time.monotonic()
            if renew or self._token is None or now - self._token[1] > _TOKEN_SECONDS:
                user = read_secret(USER_VARIABLE).reveal()
                password = read_secret(PASSWORD_VARIABLE, self.password_file).reveal()
                reply = transport.get(f"{self.url}/login", auth=(user, password))
                self._token = (Secret(parse_login(reply.body)), now)
            return {"Authorization": f"Bearer {self._token[0].reveal()}"}

    @override
    def same_zone(self, answered: str) -> bool:
        return self.region is None or answered.casefold() == self.region.casefold()

    def _learn_region(self, body: Any) -> Answer:
        self.region = self.zone = parse_region(body)
        return Answer()


def parse_login(body: Any) -> str:
    """Read the token that ``/login`` answers with."""
    token = mapping(body).get("token")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise UnreadableError("WattTime's log-in answers without a token")
    return token


def parse_region(body: Any) -> str:
    """Read the region that ``/v3/region-from-loc`` answers with."""
    region = mapping(body).get("region")
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        raise RefusedError("WattTime has no region at these coordinates")
    return region


def parse_forecast(body: Any) -> Answer:
    """Read the answer of ``/v3/forecast``."""
    meta = _meta(body)
    return whole(
        Answer(
            forecast=_points(body, "forecast"),
            issued_at=read_time(meta.get("generated_at")),
            zone=_region(meta),
        )
    )


def parse_historical(body: Any) -> Answer:
    """Read the answer of ``/v3/historical``."""
    meta = _meta(body)
    return whole(Answer(past=_points(body, "measured"), zone=_region(meta)))


def _points(body: Any, quality: Any) -> tuple[Point, ...]:
    points = []
    for row in items(body, "data"):
        time_, value = read_time(row.get("point_time")), read_value(row.get("value"), G_PER_KWH)
        if time_ is not None and value is not None:
            points.append(Point(time_, value, "estimated" if row.get("imputed_data_used") is True else quality))
    return ordered(points)


def _meta(body: Any) -> Mapping[str, Any]:
    meta = mapping(body).get("meta")
    if not isinstance(meta, Mapping):
        raise UnreadableError("WattTime answers without `meta`, so the unit of its numbers is not known")
    unit = meta.get("units")
    if unit == "percentile":
        raise WrongUnitError("WattTime answers with a percentile, which is no carbon intensity")
    if unit != "lbs_co2_per_mwh":
        raise WrongUnitError(f"WattTime answers in {shown(unit)}, lbs_co2_per_mwh was expected")
    return meta


def _region(meta: Mapping[str, Any]) -> str | None:
    region = meta.get("region")
    return region if isinstance(region, str) else None
