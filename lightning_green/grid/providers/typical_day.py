"""A built-in typical day, for clusters without internet access and for the demo."""

from __future__ import annotations

import functools
import math
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from typing_extensions import override

from lightning_green.grid.providers.annual import annual_figure
from lightning_green.grid.series import HISTORY, grid_times, utc
from lightning_green.grid.signal import GridSignal, Reading, SignalKind
from lightning_green.grid.zones import parse_place
from lightning_green.planning.forecast import Forecast

_HOUR = timedelta(hours=1)

# (height, hour of local solar time, width in hours) of each bump on a flat day
_BUMPS = ((-0.30, 12.5, 3.0), (0.15, 19.5, 2.2), (0.06, 7.5, 1.5))
_WEEKEND = 0.92

# Longitude of each country's center of demand, in degrees east, to a degree or two. It shifts the shape to local solar
# time. Countries without an entry are placed at Greenwich.
_LONGITUDE = {
    "ARG": -59, "AUS": 148, "AUT": 15, "BEL": 4, "BGR": 25, "BRA": -47, "CAN": -79, "CHE": 8, "CHL": -71, "CHN": 114,
    "COL": -74, "CZE": 15, "DEU": 9, "DNK": 11, "EGY": 31, "ESP": -4, "EST": 25, "FIN": 25, "FRA": 3, "GBR": -1,
    "GRC": 23, "HRV": 16, "HUN": 19, "IDN": 107, "IND": 77, "IRL": -7, "IRN": 52, "ISL": -21, "ISR": 35, "ITA": 11,
    "JPN": 138, "KAZ": 72, "KEN": 37, "KOR": 127, "LTU": 24, "LUX": 6, "LVA": 24, "MAR": -7, "MEX": -100, "MYS": 102,
    "NGA": 6, "NLD": 5, "NOR": 9, "NZL": 175, "PAK": 71, "PER": -76, "PHL": 121, "POL": 19, "PRT": -9, "ROU": 26,
    "RUS": 45, "SAU": 45, "SGP": 104, "SRB": 21, "SVK": 18, "SVN": 15, "SWE": 17, "THA": 101, "TUR": 31, "TWN": 121,
    "UKR": 32, "USA": -92, "VNM": 106, "ZAF": 28,
}  # fmt: skip


class TypicalDay(GridSignal):
    """The shape of a typical day, scaled to a country's annual mean. It is an assumed shape, not data, and labeled so.

    Hour by hour, in local solar time h (UTC hour + longitude / 15):

        g(h) = mean x w x (1 - 0.30 b(h, 12.5, 3.0) + 0.15 b(h, 19.5, 2.2) + 0.06 b(h, 7.5, 1.5)) / norm
        b(h, center, width) = exp(-(d / width)^2 / 2), d = hours from the center around the clock

    It has a dip at noon (solar power), a peak in the evening and a small one in the morning. w is lower on weekends
    (ratio 0.92). norm makes the mean over a week the country's annual mean (codecarbon's data). Season and weather are
    ignored, and the daily shape of a real grid may differ: prefer a measured trace.

    Args:
        zone: ISO country code of two or three letters, or an Electricity Maps zone or a cloud region, for its country's
            mean.

    Raises:
        ValueError: If ``zone`` is unknown, or has no annual mean.

    Examples:
        ```python
        CarbonScheduler(grid=TypicalDay("DE"), deadline="36h")
        ```

    """

    is_static = True

    def __init__(self, zone: str) -> None:
        self.figure = annual_figure(zone)
        self.zone = str(parse_place(zone))
        self.kind = SignalKind("average", "lifecycle")
        self.source = f"typical day {self.figure.country}"
        self.solar_offset = _LONGITUDE.get(self.figure.country, 0) / 15.0

    @override
    def intensity(self, at: datetime) -> Reading | None:
        start = grid_times(at, timedelta(0), _HOUR)[0]
        value = self.figure.value * typical_factor(start, self.solar_offset)
        return Reading(value, self.kind, self.source, self.zone, measured_at=start, quality="static")

    @override
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        times = grid_times(now, horizon, _HOUR)
        past = grid_times(times[0] - HISTORY, HISTORY, _HOUR)
        return Forecast(
            times=times,
            values=self._values(times),
            kind=str(self.kind),
            issued_at=now,
            history_times=past,
            history_values=self._values(past),
        )

    @override
    def spec(self) -> dict[str, Any] | None:
        return self._spec(zone=self.zone)

    @override
    def describe(self) -> str:
        return (
            f"typical day of {self.figure.name} (a shape scaled to the annual mean {self.figure.value:g} gCO2e/kWh of "
            f"{self.figure.year}, not data), {self.kind}, estimate"
        )

    def _values(self, times: Any) -> Any:
        return np.array([self.figure.value * typical_factor(time, self.solar_offset) for time in times])


def typical_factor(start: datetime, solar_offset: float) -> float:
    """Return the ratio of the hour that begins at ``start`` to the annual mean.

    Args:
        start: Start of an hour, aware.
        solar_offset: Local solar time minus UTC, in hours.

    """
    middle = start.astimezone(timezone.utc) + timedelta(minutes=30)
    local = utc(middle.timestamp() + solar_offset * 3600.0)
    weekday = 7.0 / (5.0 + 2.0 * _WEEKEND)
    week = weekday * _WEEKEND if local.weekday() >= 5 else weekday
    return week * _shape(local.hour + local.minute / 60.0 + local.second / 3600.0) / _norm(solar_offset)


@functools.lru_cache(maxsize=4096)  # a forecast has thousands of hours, at 24 times of day
def _shape(hour: float) -> float:
    return 1.0 + sum(height * math.exp(-0.5 * (_around(hour, center) / width) ** 2) for height, center, width in _BUMPS)


def _around(hour: float, center: float) -> float:
    return (hour - center + 12.0) % 24.0 - 12.0


@functools.lru_cache(maxsize=256)
def _norm(solar_offset: float) -> float:
    return sum(_shape((hour + 0.5 + solar_offset) % 24.0) for hour in range(24)) / 24.0
