"""A constant carbon intensity."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from typing_extensions import override

from lightning_green.grid.series import grid_times
from lightning_green.grid.signal import GridSignal, Reading, SignalKind
from lightning_green.planning.forecast import Forecast


class ConstantSignal(GridSignal):
    """The same carbon intensity at all times, for example a utility's yearly figure.

    It accounts for emissions. A plan cannot save any, because all hours are equal.

    Args:
        intensity: Carbon intensity in gCO2e/kWh.
        zone: Grid zone, or None.
        kind: Definition of the value, for example ``"average/lifecycle"``.

    Raises:
        TypeError: If ``intensity`` is not a number.
        ValueError: If ``intensity`` is negative or not finite, or ``kind`` is unknown.

    Examples:
        ```python
        EmissionsTracker(grid=ConstantSignal(381.0, zone="DE"))
        ```

    """

    is_static = True

    def __init__(self, intensity: float, zone: str | None = None, kind: str = "average/lifecycle") -> None:
        if isinstance(intensity, bool) or not isinstance(intensity, (int, float)):
            raise TypeError(f"`intensity` should be a number in gCO2e/kWh, got {intensity!r}.")
        if not math.isfinite(intensity) or intensity < 0:
            raise ValueError(f"`intensity` should be a finite number of gCO2e/kWh, 0 or more, got {intensity!r}.")
        self.value = float(intensity)
        self.zone = zone
        self.kind = SignalKind.parse(kind)
        self.source = "constant"

    @override
    def intensity(self, at: datetime) -> Reading | None:
        return Reading(self.value, self.kind, self.source, self.zone, measured_at=at, quality="static")

    @override
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        times = grid_times(now, horizon, self.resolution())
        return Forecast(times, np.full(len(times), self.value), kind=str(self.kind), issued_at=now)

    @override
    def mean(self, start: datetime, end: datetime) -> float | None:
        return self.value

    @override
    def spec(self) -> dict[str, Any] | None:
        return self._spec(intensity=self.value, zone=self.zone, kind=str(self.kind))

    @override
    def describe(self) -> str:
        return f"constant {self.value:g} gCO2e/kWh, {self.kind}, zone {self.zone or 'none'}"
