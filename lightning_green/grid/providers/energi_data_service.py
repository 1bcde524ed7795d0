"""Energi Data Service of Energinet: Denmark, no key."""

from __future__ import annotations

import json
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
    truncate_text,
)
from lightning_green.grid.signal import Quality, SignalKind
from lightning_green.utilities.http.url import check_url

_STEP = timedelta(minutes=5)
AREAS = {"DK1": "DK1", "DK2": "DK2", "DK-DK1": "DK1", "DK-DK2": "DK2"}
"""The two price areas by all their names."""


class EnergiDataServiceSignal(LiveSignal):
    """Average direct carbon intensity of west (DK1) or east (DK2) Denmark every 5 minutes, with a forecast.

    Args:
        zone: ``"DK1"`` or ``"DK2"``, also as the Electricity Maps zone ``"DK-DK1"``.
        url: Address of the service.
        max_age: Values older than this are not used for the present.

    Raises:
        ValueError: If ``zone`` is anything else.

    Examples:
        ```python
        CarbonScheduler(grid=EnergiDataServiceSignal("DK1"), deadline="36h")
        ```

    """

    def __init__(self, zone: str, url: str = "https://api.energidataservice.dk", max_age: str = MAX_AGE) -> None:
        area = AREAS.get(zone.strip().upper()) if isinstance(zone, str) else None
        if area is None:
            raise ValueError(f'`zone` should be "DK1" (west) or "DK2" (east), got {zone!r}.')
        self.url = check_url(url).rstrip("/")
        arguments = {"zone": zone, "url": url, "max_age": max_age}
        super().__init__("energi-data-service", area, SignalKind("average", "direct"), _STEP, arguments, max_age)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        area = str(self.zone)
        # Times in a request are Danish local time by default; `Minutes5UTC` in an answer is UTC.
        common = {"filter": json.dumps({"PriceArea": [area]}), "timezone": "UTC", "sort": "Minutes5UTC desc"}
        base, begin = f"{self.url}/dataset", floor_time(now, timedelta(hours=1))
        past = {**common, "start": format_minutes(begin - timedelta(days=1))[:-1], "limit": "400"}
        ahead = {**common, "start": format_minutes(begin)[:-1], "limit": "1000"}
        read_past = partial(parse_records, area=area, quality="measured")
        read_ahead = partial(parse_records, area=area, quality="forecast")
        hour = timedelta(hours=1)
        name = f"{base}/CO2Emis"
        return (
            Query("now", name, _STEP, read_past, past, identity=f"{name} {area}"),
            Query("forecast", f"{name}Prog", hour, read_ahead, ahead, identity=f"{name}Prog {area}", optional=True),
        )


def parse_records(body: Any, area: str, quality: Quality) -> Answer:
    """Parse the answer of a dataset. Its times are naive UTC, and it may contain other areas."""
    rows = parse_list(body, "records")
    points = collect_points(
        (parse_time(row.get("Minutes5UTC")), parse_value(row.get("CO2Emission")), quality)
        for row in rows
        if row.get("PriceArea") == area
    )
    others = {truncate_text(row.get("PriceArea")) for row in rows if row.get("PriceArea") != area}
    if not points and others:
        raise WrongZoneError(
            f"Energi Data Service was asked for {area} and answers for {', '.join(sorted(others)[:3])}"
        )
    if not points:
        raise NoDataError(f"Energi Data Service has no value for {area}")
    return Answer(forecast=points) if quality == "forecast" else Answer(past=points)
