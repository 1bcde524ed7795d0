"""energy-charts.info of Fraunhofer ISE: most of continental Europe, no key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from lightning_green.grid.live import (
    MAX_AGE,
    Answer,
    LiveSignal,
    Query,
    collect_points,
    floor_time,
    parse_object,
    parse_unix_time,
    parse_value,
    require_points,
)
from lightning_green.grid.signal import SignalKind
from lightning_green.grid.zones import parse_place
from lightning_green.utilities.http.errors import UnreadableError
from lightning_green.utilities.http.url import check_url

_QUARTER = timedelta(minutes=15)

_CODES = """
AL AT BA BE BG CH CY CZ DE DK EE ES FI FR GE GR HR HU IE IT LT LU LV MD ME MK NL NO PL PT RO RS SE SI SK XK
"""
COUNTRIES = frozenset(_CODES.split())
"""Countries that the service covers."""


class EnergyChartsSignal(LiveSignal):
    """Average carbon intensity of a European country every 15 minutes, with a forecast of about a day.

    Args:
        zone: ISO country of two or three letters.
        kind: Definition of the values. The service documents CO2 equivalents with lifecycle factors.
        url: Address of the service.
        max_age: Values older than this are not used for the present.

    Raises:
        ValueError: If ``zone`` is not a country of Europe that the service covers.

    Examples:
        ```python
        CarbonScheduler(grid=EnergyChartsSignal("DE"), deadline="36h")
        ```

    """

    def __init__(
        self,
        zone: str,
        kind: str = "average/lifecycle",
        url: str = "https://api.energy-charts.info",
        max_age: str = MAX_AGE,
    ) -> None:
        place = parse_place(zone)
        if place.code not in COUNTRIES:
            raise ValueError(
                f'`zone` should be a country such as "DE" that energy-charts covers ({", ".join(sorted(COUNTRIES))}), '
                f"got {zone!r}."
            )
        self.url = check_url(url).rstrip("/")
        arguments = {"zone": zone, "kind": kind, "url": url, "max_age": max_age}
        super().__init__("energy-charts", place.code, SignalKind.parse(kind), _QUARTER, arguments, max_age)

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        address, country = f"{self.url}/co2eq", str(self.zone).lower()
        today = floor_time(now, timedelta(days=1))
        week = {"country": country, "start": f"{today - timedelta(days=7):%Y-%m-%d}", "end": f"{today:%Y-%m-%d}"}
        return (
            Query("now", address, _QUARTER, parse_co2eq, {"country": country}),
            Query(
                "history", address, timedelta(hours=12), parse_co2eq, week, f"{address} {country} week", optional=True
            ),
        )


def parse_co2eq(body: Any) -> Answer:
    """Parse the answer of ``/co2eq``. Where ``co2eq`` is null, ``co2eq_forecast`` has the value."""
    columns = parse_object(body)
    times, measured = columns.get("unix_seconds"), columns.get("co2eq")
    predicted = columns.get("co2eq_forecast")
    if not isinstance(times, list) or not isinstance(measured, list):
        raise UnreadableError("energy-charts answers without the lists `unix_seconds` and `co2eq`")
    if predicted is None:
        predicted = [None] * len(times)
    if not isinstance(predicted, list) or not len(times) == len(measured) == len(predicted):
        raise UnreadableError("energy-charts answers with lists of unequal length")
    rows = [
        (parse_unix_time(time), parse_value(value), parse_value(forecast))
        for time, value, forecast in zip(times, measured, predicted, strict=True)
    ]
    past = collect_points((time, value, "measured") for time, value, _ in rows)
    ahead = collect_points((time, forecast, "forecast") for time, value, forecast in rows if value is None)
    return require_points(Answer(past=past, forecast=ahead))
