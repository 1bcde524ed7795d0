"""WattTime, API version 3: marginal emissions."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

from typing_extensions import override

from lightning_green.grid.cloud_regions import CLOUD_REGIONS, SEVERAL_GRIDS
from lightning_green.grid.errors import WrongUnitError
from lightning_green.grid.live import (
    MAX_AGE,
    Answer,
    Authentication,
    FetchResult,
    LiveSignal,
    Point,
    Query,
    collect_points,
    floor_time,
    format_minutes,
    parse_list,
    parse_object,
    parse_time,
    parse_value,
    require_points,
    truncate_text,
)
from lightning_green.grid.signal import Quality, SignalKind
from lightning_green.grid.zone_names import WATTTIME_REGIONS
from lightning_green.grid.zones import nearest_names, parse_place
from lightning_green.utilities.http.errors import RefusedError, UnreadableError
from lightning_green.utilities.http.secret import Secret, read_secret
from lightning_green.utilities.http.transport import Transport
from lightning_green.utilities.http.url import check_url

USER_VARIABLE = "WATTTIME_USERNAME"
PASSWORD_VARIABLE = "WATTTIME_PASSWORD"  # noqa: S105  (the name of a variable)
G_PER_KWH = 0.45359237
"""Grams per kWh in one pound per MWh (the international pound is 453.59237 g)."""
_SIGNAL = "co2_moer"
_STEP = timedelta(minutes=5)
_REGION = re.compile(r"[A-Z0-9_-]{2,40}")
_TYPO_SIMILARITY = 0.85  # "CAISO_NORT" and "CAISO_NORTH": 0.95
_SHORTEST_COMPARED = 5  # unrelated short names are similar
_TOKEN_SECONDS = 25 * 60.0  # a token is valid for 30 minutes


class WattTimeSignal(LiveSignal):
    """Marginal carbon intensity (of the plant that supplies one additional kWh) with a forecast of 72 hours.

    It is a signal for planning. Emissions computed from it are labeled marginal. The user name and the password are
    read from ``WATTTIME_USERNAME`` and ``WATTTIME_PASSWORD`` (or a file). The token is kept in memory only and renewed
    once after it has expired. The percentile of ``/v3/signal-index`` is not an intensity and is not used.

    Args:
        zone: WattTime region such as ``"CAISO_NORTH"``, or ``"38.5,-121.5"``, for which the region is looked up. The
            complete list of regions is not public: a name that is not a typo of a known region is sent to the service,
            which rejects it if there is no such region.
        password_file: File that contains the password; None for the environment.
        url: Address of the service.
        max_age: Values older than this are not used for the present.

    Raises:
        ValueError: If ``zone`` is invalid, a typo of a known region, or a cloud region.

    Examples:
        ```python
        CarbonScheduler(grid=WattTimeSignal("CAISO_NORTH"), deadline="36h")
        ```

    """

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
        self.region: str | None = None if self.place is not None else check_region(zone)
        self.url = check_url(url, f"{USER_VARIABLE} and {PASSWORD_VARIABLE}").rstrip("/")
        arguments = {"zone": zone, "password_file": password_file, "url": url, "max_age": max_age}
        kind, login = SignalKind("marginal", "direct"), WattTimeLogin(f"{self.url}/login", password_file)
        super().__init__("watttime", self.region or zone, kind, _STEP, arguments, max_age, login)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        if self.region is None:
            assert self.place is not None
            params = {"latitude": f"{self.place.latitude:g}", "longitude": f"{self.place.longitude:g}"}
            place = {**params, "signal_type": _SIGNAL}
            return (Query("region", f"{self.url}/v3/region-from-loc", timedelta(days=1), self._set_region, place),)
        forecast = {"region": self.region, "signal_type": _SIGNAL, "horizon_hours": "72"}
        end = floor_time(now, _STEP)
        past = {"region": self.region, "signal_type": _SIGNAL, "start": format_minutes(end - timedelta(days=1))}
        past["end"] = format_minutes(end)
        history, hour = f"{self.url}/v3/historical", timedelta(hours=1)
        identity = f"{history} {self.region}"
        return (
            Query("forecast", f"{self.url}/v3/forecast", _STEP, parse_forecast, forecast),
            Query("history", history, hour, parse_historical, past, identity=identity, optional=True),
        )

    @override
    def fetch(self, now: datetime, *, force: bool = False) -> FetchResult:
        was_unknown = self.region is None
        result = super().fetch(now, force=force)
        if was_unknown and self.region is not None and not result.interrupted:
            return super().fetch(now, force=force)  # the first request returned the region, this one its values
        return result

    def _set_region(self, body: Any) -> Answer:
        self.region = self.zone = parse_region(body)
        return Answer()


def check_region(zone: str) -> str:
    """Return the WattTime region ``zone`` in upper case.

    Raises:
        ValueError: If it is a typo of a known region, or a cloud region.

    """
    region = zone.strip().upper()
    if region in WATTTIME_REGIONS:
        return region
    if zone.strip().casefold() in CLOUD_REGIONS or zone.strip().casefold() in SEVERAL_GRIDS:
        raise ValueError(
            "`zone` should be a WattTime region or the coordinates of the data center: WattTime does not use the names "
            f"of cloud regions, got {zone!r}."
        )
    similar = get_close_matches(region, WATTTIME_REGIONS, n=3, cutoff=_TYPO_SIMILARITY)
    if similar and len(region) > _SHORTEST_COMPARED:
        raise ValueError(
            f"`zone` should be a WattTime region, or coordinates, got {zone!r}.{nearest_names(region, similar)}"
        )
    return region


class WattTimeLogin(Authentication):
    """User name and password, exchanged for a token that is valid for half an hour.

    Args:
        url: Address of the login.
        password_file: File that contains the password; None for the environment.

    """

    renewable = True

    def __init__(self, url: str, password_file: str | None = None) -> None:
        self.url = url
        self.password_file = password_file
        self._token: tuple[Secret, float] | None = None
        self._lock = threading.Lock()

    @override
    def credential(self) -> Secret | None:
        user, password = self._user_and_password()
        return Secret(f"{user}:{password}")

    @override
    def headers(self, transport: Transport, *, renew: bool = False) -> dict[str, str]:
        with self._lock:
            now = time.monotonic()
            if renew or self._token is None or now - self._token[1] > _TOKEN_SECONDS:
                hint = f"the user name in {USER_VARIABLE} or its password is wrong"
                reply = transport.get(self.url, auth=self._user_and_password(), hint=hint)
                self._token = (Secret(parse_login(reply.body)), now)
            return {"Authorization": f"Bearer {self._token[0].reveal()}"}

    @override
    def hint(self) -> str:
        # Of a request with a token, so the login was accepted. Source: https://docs.watttime.org
        return "the account has no access to the region (a free account: CAISO_NORTH only)"

    def _user_and_password(self) -> tuple[str, str]:
        return read_secret(USER_VARIABLE).reveal(), read_secret(PASSWORD_VARIABLE, self.password_file).reveal()


def parse_login(body: Any) -> str:
    """Parse the token in the answer of ``/login``."""
    token = parse_object(body).get("token")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise UnreadableError("the login of WattTime answers without a token")
    return token


def parse_region(body: Any) -> str:
    """Parse the region in the answer of ``/v3/region-from-loc``."""
    region = parse_object(body).get("region")
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        raise RefusedError("WattTime has no region at these coordinates")
    return region


def parse_forecast(body: Any) -> Answer:
    """Parse the answer of ``/v3/forecast``."""
    meta = _meta(body)
    return require_points(
        Answer(
            forecast=_points(body, "forecast"),
            issued_at=parse_time(meta.get("generated_at")),
            zone=_region(meta),
        )
    )


def parse_historical(body: Any) -> Answer:
    """Parse the answer of ``/v3/historical``."""
    meta = _meta(body)
    return require_points(Answer(past=_points(body, "measured"), zone=_region(meta)))


def _points(body: Any, quality: Quality) -> tuple[Point, ...]:
    return collect_points(
        (
            parse_time(row.get("point_time")),
            parse_value(row.get("value"), G_PER_KWH),
            "estimated" if row.get("imputed_data_used") is True else quality,
        )
        for row in parse_list(body, "data")
    )


def _meta(body: Any) -> Mapping[str, Any]:
    meta = parse_object(body).get("meta")
    if not isinstance(meta, Mapping):
        raise UnreadableError("WattTime answers without `meta`, so the unit of its values is unknown")
    unit = meta.get("units")
    if unit == "percentile":
        raise WrongUnitError("WattTime answers with a percentile, which is not a carbon intensity")
    if unit != "lbs_co2_per_mwh":
        raise WrongUnitError(f"WattTime answers in {truncate_text(unit)} instead of lbs_co2_per_mwh")
    return meta


def _region(meta: Mapping[str, Any]) -> str | None:
    region = meta.get("region")
    return region if isinstance(region, str) else None
