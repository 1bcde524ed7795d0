"""A provider in another package: the carbon intensity of a hydropower utility."""

from datetime import datetime, timedelta
from typing import Any

from lightning_green.grid import GridSignal, Reading, SignalKind
from lightning_green.grid.series import grid_times
from lightning_green.planning import Forecast


class HydroSignal(GridSignal):
    """20 gCO2e/kWh, 30 from 8:00 to 20:00 UTC.

    Args:
        zone: ``"NO1"`` to ``"NO5"``.

    Raises:
        ValueError: If ``zone`` is anything else.

    """

    kind = SignalKind("average", "lifecycle")
    source = "hydro-utility"

    def __init__(self, zone: str) -> None:
        if zone not in ("NO1", "NO2", "NO3", "NO4", "NO5"):
            raise ValueError(f'`zone` should be "NO1" to "NO5", got {zone!r}.')
        self.zone = zone

    def intensity(self, at: datetime) -> Reading | None:
        start = grid_times(at, timedelta(0), self.resolution())[0]
        return Reading(_value(start), self.kind, self.source, self.zone, measured_at=start)

    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        times = grid_times(now, horizon, self.resolution())
        return Forecast(times, [_value(time) for time in times], kind=str(self.kind), issued_at=now)

    def spec(self) -> dict[str, Any] | None:
        return self._spec(zone=self.zone)


def _value(start: datetime) -> float:
    return 30.0 if 8 <= start.hour < 20 else 20.0
