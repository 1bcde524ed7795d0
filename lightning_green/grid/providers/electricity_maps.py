"""Electricity Maps, API version 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from typing_extensions import override

from lightning_green.grid.errors import InventedDataError, WrongUnitError
from lightning_green.grid.live.answer import (
    Answer,
    Point,
    Query,
    items,
    mapping,
    ordered,
    read_time,
    read_value,
    shown,
    whole,
)
from lightning_green.grid.live.signal import MAX_AGE, LiveSignal
from lightning_green.grid.signal import SignalKind
from lightning_green.grid.zones import parse_place
from lightning_green.utilities.http.errors import RejectedError
from lightning_green.utilities.http.secret import Secret, read_secret
from lightning_green.utilities.http.transport import Transport

TOKEN_VARIABLE = "ELECTRICITYMAPS_API_TOKEN"  # noqa: S105  (the name of a variable)
_HOUR = timedelta(hours=1)
_HORIZON_HOURS = "72"


class ElectricityMapsSignal(LiveSignal):
    """Average carbon intensity, flow-traced, of any zone that Electricity Maps knows.

    Every plan has the present value and the last 24 hours; some have a forecast of 72 hours. Without one, the planner
    takes the hours of the days before. Its estimates are marked ``"estimated"``, and the invented numbers of a sandbox
    token are refused. The token is read from ``ELECTRICITYMAPS_API_TOKEN`` or a file.

    Args:
        zone: Zone code (``"DE"``, ``"US-CAL-CISO"``), ISO country, or ``"52.5,13.4"``.
        scope: ``"lifecycle"`` or ``"direct"`` emission factors.
        token_file: A file that holds the token; None for the environment.
        url: Address of the service.
        max_age: Values older than this are not taken for "now".

    Raises:
        ValueError: If ``zone`` or ``scope`` cannot be read.

    Example::

        CarbonScheduler(grid=ElectricityMapsSignal("DE"), deadline="36h")

    """

    def __init__(
        self,
        zone: str,
        scope: Literal["lifecycle", "direct"] = "lifecycle",
        token_file: str | None = None,
        url: str = "https://api.electricitymaps.com",
        max_age: str = MAX_AGE,
    ) -> None:
        self.place = parse_place(zone)
        self.url = url.rstrip("/")
        self.token_file = token_file
        arguments = {"zone": zone, "scope": scope, "token_file": token_file, "url": url, "max_age": max_age}
        kind = SignalKind("average", scope)
        super().__init__("electricity-maps", str(self.place), kind, _HOUR, arguments, max_age)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        params: dict[str, str] = {"emissionFactorType": self.kind.scope}
        if self.place.code is not None:
            params["zone"] = self.place.code
        else:
            # without the last of these, coordinates that are in no zone get the zone of our own address
            params.update(lat=f"{self.place.latitude:g}", lon=f"{self.place.longitude:g}")
            params["shouldUseFallbackCallerLookup"] = "false"
        base, scope = f"{self.url}/v3/carbon-intensity", self.kind.scope
        return (
            Query("now", f"{base}/latest", _HOUR, partial(parse_latest, scope=scope), params),
            Query("history", f"{base}/history", _HOUR, partial(parse_history, scope=scope), params, optional=True),
            Query(
                "forecast",
                f"{base}/forecast",
                _HOUR,
                parse_forecast,
                {**params, "horizonHours": _HORIZON_HOURS},
                optional=True,
            ),
        )

    @override
    def credential(self) -> Secret | None:
        return read_secret(TOKEN_VARIABLE, self.token_file)

    @override
    def headers(self, transport: Transport, *, renew: bool) -> dict[str, str]:
        return {"auth-token": read_secret(TOKEN_VARIABLE, self.token_file).reveal()}

    def access(self) -> frozenset[str] | None:
        """Ask, on the calling thread, what the token's plan may ask about the zone; see :func:`parse_access`.

        Raises:
            ServiceError: If there is no usable answer.

        """
        if self.place.code is None:
            return None
        transport = Transport(self.limits)
        try:
            headers = self.headers(transport, renew=False)
            return parse_access(transport.get(f"{self.url}/v3/zones", headers=headers).body, self.place.code)
        finally:
            transport.close()

    @override
    def same_zone(self, answered: str) -> bool:
        # coordinates have no code to compare with; the service itself finds their zone
        return self.place.code is None or super().same_zone(answered)


def parse_access(body: Any, zone: str) -> frozenset[str] | None:
    """Read from the answer of ``/v3/zones``, asked with a token, what the token's plan may ask about ``zone``.

    Returns:
        Routes such as ``"carbon-intensity/latest"`` (``"*"`` for all); None where the service does not say.

    Raises:
        RejectedError: If there is no such zone, or the token does not include it.

    """
    found = mapping(body).get(zone)
    if not isinstance(found, Mapping):
        raise RejectedError(f"Electricity Maps does not know the zone {zone}, or the token does not include it")
    access = found.get("access")
    return frozenset(str(route) for route in access) if isinstance(access, list) else None


def parse_latest(body: Any, scope: str = "lifecycle") -> Answer:
    """Read the answer of ``/v3/carbon-intensity/latest``."""
    row = mapping(body)
    point = _point(row, scope)
    zone = row.get("zone")
    return whole(
        Answer(
            past=() if point is None else (point,),
            issued_at=read_time(row.get("updatedAt")),
            zone=zone if isinstance(zone, str) else None,
        )
    )


def parse_history(body: Any, scope: str = "lifecycle") -> Answer:
    """Read the answer of ``/v3/carbon-intensity/history`` (``history``) or ``past-range`` (``data``)."""
    rows = items(body, "history", "data")
    points = [point for point in (_point(row, scope) for row in rows) if point is not None]
    # no issue time: this is about the past, and the present value has one of its own
    return whole(Answer(past=ordered(points), zone=_zone(body)))


def parse_forecast(body: Any) -> Answer:
    """Read the answer of ``/v3/carbon-intensity/forecast``."""
    _refuse_sandbox(mapping(body))
    points = []
    for row in items(body, "forecast"):
        time, value = read_time(row.get("datetime")), read_value(row.get("carbonIntensity"))
        if time is not None and value is not None:
            points.append(Point(time, value, "forecast"))
    return whole(Answer(forecast=ordered(points), issued_at=read_time(body.get("updatedAt")), zone=_zone(body)))


def _point(row: Mapping[str, Any], scope: str) -> Point | None:
    _refuse_sandbox(row)
    factors = row.get("emissionFactorType")
    if isinstance(factors, str) and factors.casefold() != scope:
        raise WrongUnitError(
            f"Electricity Maps answers with {shown(factors)} emission factors, {scope} ones were asked for"
        )
    time, value = read_time(row.get("datetime")), read_value(row.get("carbonIntensity"))
    if time is None or value is None:
        return None
    return Point(time, value, "estimated" if row.get("isEstimated") is True else "measured")


def _refuse_sandbox(row: Mapping[str, Any]) -> None:
    if "sandbox" in f"{row.get('estimationMethod')} {row.get('_disclaimer')}".casefold():
        raise InventedDataError("the Electricity Maps token is a sandbox token, whose numbers are invented")


def _zone(body: Any) -> str | None:
    zone = mapping(body).get("zone")
    return zone if isinstance(zone, str) else None
