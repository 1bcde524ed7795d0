"""The Carbon Intensity API of Great Britain's system operator, NESO. Data: CC BY 4.0."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from typing_extensions import override

from lightning_green.grid.errors import WrongZoneError
from lightning_green.grid.live import (
    MAX_AGE,
    Answer,
    LiveSignal,
    Query,
    collect_points,
    floor_time,
    format_minutes,
    parse_object,
    parse_time,
    parse_value,
    require_points,
    truncate_text,
)
from lightning_green.grid.signal import SignalKind
from lightning_green.utilities.http.errors import UnreadableError
from lightning_green.utilities.http.url import check_url

_HALF_HOUR = timedelta(minutes=30)
_POSTCODE = re.compile(r"[A-Z]{1,2}[0-9][A-Z0-9]?")


class NesoSignal(LiveSignal):
    """Average direct carbon intensity of Great Britain or one of its 14 regions; no key, 48 hours of forecast.

    Args:
        region: NESO region number, 1 to 17; None for all of Great Britain.
        postcode: Outward postcode such as ``"RG10"`` instead of a region number.
        url: Address of the service.
        max_age: Values older than this are not used for the present.

    Raises:
        ValueError: If ``region`` or ``postcode`` is invalid, or both are given.

    Examples:
        ```python
        CarbonScheduler(grid=NesoSignal(region=13), deadline="36h")
        ```

    """

    def __init__(
        self,
        region: int | None = None,
        postcode: str | None = None,
        url: str = "https://api.carbonintensity.org.uk",
        max_age: str = MAX_AGE,
    ) -> None:
        if region is not None and postcode is not None:
            raise ValueError("Either `region` or `postcode` should be given, got both.")
        if region is not None and (not isinstance(region, int) or not 1 <= region <= 17):
            raise ValueError(f"`region` should be a number from 1 to 17, got {region!r}.")
        if postcode is not None and not _POSTCODE.fullmatch(postcode.strip().upper()):
            raise ValueError(f'`postcode` should be an outward postcode such as "RG10", got {postcode!r}.')
        self.region = region
        self.postcode = postcode.strip().upper() if postcode else None
        self.url = check_url(url).rstrip("/")
        arguments = {"region": region, "postcode": postcode, "url": url, "max_age": max_age}
        zone = "GB" + (f"-{region}" if region is not None else f"-{self.postcode}" if self.postcode else "")
        super().__init__("neso", zone, SignalKind("average", "direct"), _HALF_HOUR, arguments, max_age)

    @classmethod
    @override
    def from_zone(cls, zone: str | None) -> NesoSignal:
        """Return the signal of Great Britain, or of a region (``"GB-13"``, ``"13"``) or a postcode (``"SW1A"``)."""
        region = (zone or "GB").upper().removeprefix("GB").removeprefix("-")
        if not region:
            return cls()
        return cls(region=int(region)) if region.isdigit() else cls(postcode=region)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        begin = floor_time(now, _HALF_HOUR)
        where = ""
        if self.region is not None:
            where = f"/regionid/{self.region}"
        elif self.postcode is not None:
            where = f"/postcode/{self.postcode}"
        base = f"{self.url}/regional/intensity" if where else f"{self.url}/intensity"
        identity = f"{base}{where}"
        read_forecast = partial(parse_forecast, region=self.region)
        read_past = partial(parse_past, region=self.region)
        past = f"{base}/{format_minutes(begin - timedelta(days=1))}/{format_minutes(begin)}{where}"
        return (
            Query(
                "forecast",
                f"{base}/{format_minutes(begin)}/fw48h{where}",
                _HALF_HOUR,
                read_forecast,
                {},
                f"{identity} ahead",
            ),
            Query("history", past, _HALF_HOUR, read_past, {}, f"{identity} past", optional=True),
        )


def parse_forecast(body: Any, region: int | None = None) -> Answer:
    """Parse the answer of ``/intensity/{from}/fw48h`` and of its regional variants."""
    rows = _rows(body, region)
    past = collect_points((time, actual, "measured") for time, actual, _ in rows)
    ahead = collect_points((time, forecast, "forecast") for time, actual, forecast in rows if actual is None)
    return require_points(Answer(past=past, forecast=ahead))


def parse_past(body: Any, region: int | None = None) -> Answer:
    """Parse the answer of ``/intensity/{from}/{to}``. Values that are not settled yet are the last predictions."""
    points = collect_points(
        (time, forecast, "estimated") if actual is None else (time, actual, "measured")
        for time, actual, forecast in _rows(body, region)
    )
    return require_points(Answer(past=points))


def _rows(body: Any, region: int | None) -> list[tuple[datetime | None, float | None, float | None]]:
    """Return ``(start, actual, forecast)`` of each half hour."""
    data = parse_object(body).get("data")
    if isinstance(data, list) and len(data) == 1 and isinstance(data[0], Mapping) and "data" in data[0]:
        data = data[0]  # the documentation shows a list of one region, the service returns the region itself
    if isinstance(data, Mapping):
        answered = data.get("regionid")
        if region is not None and answered is not None and answered != region:
            raise WrongZoneError(f"NESO was asked for region {region} and answers for {truncate_text(answered)}")
        data = data.get("data")
    if not isinstance(data, list):
        raise UnreadableError("NESO answers without a list `data`")
    rows = []
    for row in data:
        intensity = row.get("intensity") if isinstance(row, Mapping) else None
        if isinstance(intensity, Mapping):
            time = parse_time(row.get("from"))
            rows.append((time, parse_value(intensity.get("actual")), parse_value(intensity.get("forecast"))))
    return rows
