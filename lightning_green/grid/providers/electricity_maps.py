"""Electricity Maps, API version 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from typing_extensions import override

from lightning_green.grid.errors import InventedDataError, WrongUnitError
from lightning_green.grid.live import (
    MAX_AGE,
    Answer,
    LiveSignal,
    Query,
    TokenAuthentication,
    collect_points,
    parse_list,
    parse_object,
    parse_time,
    parse_value,
    require_points,
    truncate_text,
)
from lightning_green.grid.signal import Quality, SignalKind
from lightning_green.grid.zone_names import PARTS, WITHOUT_COUNTRY_ZONE
from lightning_green.grid.zones import parse_place
from lightning_green.utilities.http.errors import RejectedError
from lightning_green.utilities.http.transport import Transport
from lightning_green.utilities.http.url import check_url

TOKEN_VARIABLE = "ELECTRICITYMAPS_API_TOKEN"  # noqa: S105  (the name of a variable)
_HOUR = timedelta(hours=1)
_HORIZON_HOURS = "72"


class ElectricityMapsSignal(LiveSignal):
    """Average flow-traced carbon intensity of every Electricity Maps zone.

    Every plan includes the present value and the last 24 hours; some include a forecast of 72 hours. Without a
    forecast, the planner uses the same hours of earlier days. Estimates of the service are marked ``"estimated"``, and
    the artificial values of a sandbox token are rejected. The token is read from ``ELECTRICITYMAPS_API_TOKEN`` or a
    file.

    Args:
        zone: Zone code (``"DE"``, ``"US-CAL-CISO"``), ISO country, cloud region (``"us-east-1"``), or ``"52.5,13.4"``.
        scope: ``"lifecycle"`` or ``"direct"`` emission factors.
        token_file: File that contains the token; None for the environment.
        url: Address of the service.
        max_age: Values older than this are not used for the present.

    Raises:
        ValueError: If ``zone`` is unknown or a country that the service divides into several zones, or ``scope`` is
            invalid.

    Examples:
        ```python
        CarbonScheduler(grid=ElectricityMapsSignal("DE"), deadline="36h")
        ```

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
        if self.place.code in WITHOUT_COUNTRY_ZONE:
            raise ValueError(
                f"`zone` should be a part of {self.place.code}, which Electricity Maps divides into "
                f"{', '.join(PARTS[self.place.code])}; got {zone!r}."
            )
        self.url = check_url(url, TOKEN_VARIABLE).rstrip("/")
        arguments = {"zone": zone, "scope": scope, "token_file": token_file, "url": url, "max_age": max_age}
        kind = SignalKind("average", scope)
        reason = f"the token is wrong or is for another zone than {self.place}"
        token = TokenAuthentication(TOKEN_VARIABLE, token_file, header="auth-token", prefix="", reason=reason)
        super().__init__("electricity-maps", str(self.place), kind, _HOUR, arguments, max_age, token)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        params: dict[str, str] = {"emissionFactorType": self.kind.scope}
        if self.place.code is not None:
            params["zone"] = self.place.code
        else:
            # Without the fallback disabled, coordinates outside all zones get the zone of the caller's IP address.
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

    def access(self) -> frozenset[str] | None:
        """Request, on the calling thread, the routes that the token may use for the zone; see ``parse_access``.

        Raises:
            ServiceError: If there is no usable answer.

        """
        if self.place.code is None:
            return None
        transport = Transport(self.fetcher.limits)
        try:
            authentication = self.fetcher.authentication
            headers = authentication.headers(transport)
            answer = transport.get(f"{self.url}/v3/zones", headers=headers, hint=authentication.hint())
            return parse_access(answer.body, self.place.code)
        finally:
            transport.close()

    @override
    def is_same_zone(self, zone: str) -> bool:
        # The service finds the zone of coordinates.
        return self.place.code is None or super().is_same_zone(zone)


def parse_access(body: Any, zone: str) -> frozenset[str] | None:
    """Parse the answer of ``/v3/zones``, requested with a token, for the routes that the token may use for ``zone``.

    Returns:
        Routes such as ``"carbon-intensity/latest"`` (``"*"`` for all); None if the service does not list them.

    Raises:
        RejectedError: If the zone does not exist or the token does not include it.

    """
    found = parse_object(body).get(zone)
    if not isinstance(found, Mapping):
        raise RejectedError(f"Electricity Maps does not know the zone {zone}, or the token does not include it")
    access = found.get("access")
    return frozenset(str(route) for route in access) if isinstance(access, list) else None


def parse_latest(body: Any, scope: str = "lifecycle") -> Answer:
    """Parse the answer of ``/v3/carbon-intensity/latest``."""
    row = parse_object(body)
    points = collect_points([_parse_row(row, scope)])
    return require_points(Answer(past=points, issued_at=parse_time(row.get("updatedAt")), zone=_zone(row)))


def parse_history(body: Any, scope: str = "lifecycle") -> Answer:
    """Parse the answer of ``/v3/carbon-intensity/history`` (``history``) or ``past-range`` (``data``)."""
    points = collect_points(_parse_row(row, scope) for row in parse_list(body, "history", "data"))
    # Without a time of issue, which the newest value has.
    return require_points(Answer(past=points, zone=_zone(body)))


def parse_forecast(body: Any) -> Answer:
    """Parse the answer of ``/v3/carbon-intensity/forecast``."""
    _refuse_sandbox(parse_object(body))
    points = collect_points(
        (parse_time(row.get("datetime")), parse_value(row.get("carbonIntensity")), "forecast")
        for row in parse_list(body, "forecast")
    )
    return require_points(Answer(forecast=points, issued_at=parse_time(body.get("updatedAt")), zone=_zone(body)))


def _parse_row(row: Mapping[str, Any], scope: str) -> tuple[datetime | None, float | None, Quality]:
    _refuse_sandbox(row)
    factors = row.get("emissionFactorType")
    if isinstance(factors, str) and factors.casefold() != scope:
        raise WrongUnitError(
            f"Electricity Maps answers with {truncate_text(factors)} emission factors instead of {scope} ones"
        )
    quality: Quality = "estimated" if row.get("isEstimated") is True else "measured"
    return parse_time(row.get("datetime")), parse_value(row.get("carbonIntensity")), quality


def _refuse_sandbox(row: Mapping[str, Any]) -> None:
    if "sandbox" in f"{row.get('estimationMethod')} {row.get('_disclaimer')}".casefold():
        raise InventedDataError("the Electricity Maps token is a sandbox token, whose values are artificial")


def _zone(body: Any) -> str | None:
    zone = parse_object(body).get("zone")
    return zone if isinstance(zone, str) else None
