"""Carbon intensity from a Python callable of the user."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
from typing_extensions import override

from lightning_green.grid.series import HISTORY, grid_times
from lightning_green.grid.signal import GridSignal, Reading, SignalKind
from lightning_green.planning.forecast import Forecast
from lightning_green.utilities.durations import parse_duration


class FunctionSignal(GridSignal):
    """Carbon intensity from a Python callable, for example a model or the energy mix of a site.

    The callable is called with the start of each interval in UTC, in the past and in the future. It exists in this
    process only, so the supervisor cannot plan with it after the training has exited; record it to a file for that.

    If the callable raises, or returns anything but a finite number of at least 0, the signal returns None for that time
    and sets ``problem``.

    Args:
        function: Takes an aware datetime and returns gCO2e/kWh without blocking.
        zone: Grid zone of the values, or None.
        kind: Definition of the values, for example ``"average/lifecycle"``.
        resolution: Interval between two values.

    Raises:
        TypeError: If ``function`` is not callable.
        ValueError: If ``kind`` or ``resolution`` is invalid.

    Examples:
        ```python
        def intensity(at: datetime) -> float:
            return 50.0 if 10 <= at.hour < 15 else 400.0

        CarbonScheduler(grid=FunctionSignal(intensity, zone="DE"), deadline="36h")
        ```

    """

    def __init__(
        self,
        function: Callable[[datetime], float],
        zone: str | None = None,
        kind: str = "average/lifecycle",
        resolution: str | timedelta = "1h",
    ) -> None:
        if not callable(function):
            raise TypeError(f"`function` should be a callable from a datetime to gCO2e/kWh, got {function!r}.")
        self.function = function
        self.zone = zone
        self.kind = SignalKind.parse(kind)
        self.step = parse_duration(resolution, "resolution")
        if self.step < timedelta(seconds=1):
            raise ValueError(f"`resolution` should be one second or more, got {resolution!r}.")
        self.source = f"function {getattr(function, '__name__', type(function).__name__)}"

    @override
    def intensity(self, at: datetime) -> Reading | None:
        start = grid_times(at, timedelta(0), self.step)[0]
        try:
            value = self.function(start)
        except Exception as error:  # noqa: BLE001  (no exception of a user's callable may end a training)
            self._note(start, f"raised {type(error).__name__}: {error}")
            return None
        number = not isinstance(value, bool) and isinstance(value, (int, float, np.integer, np.floating))
        if not number or not math.isfinite(value) or value < 0:
            self._note(start, f"returned {value!r}, which is not a finite number of gCO2e/kWh, 0 or more")
            return None
        return Reading(float(value), self.kind, self.source, self.zone, measured_at=start, quality="estimated")

    @override
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        ahead = [self.intensity(time) for time in grid_times(now, horizon, self.step)]
        known: list[Reading] = []
        for reading in ahead:  # a planner needs contiguous values
            if reading is None:
                break
            known.append(reading)
        if not known:
            return None
        first = known[0].measured_at
        past = [self.intensity(first - self.step * back) for back in range(int(HISTORY / self.step), 0, -1)]
        history = [reading for reading in past if reading is not None]
        return Forecast(
            times=[reading.measured_at for reading in known],
            values=np.array([reading.value for reading in known]),
            kind=str(self.kind),
            issued_at=now,
            history_times=[reading.measured_at for reading in history],
            history_values=np.array([reading.value for reading in history]) if history else None,
        )

    @override
    def resolution(self) -> timedelta:
        return self.step

    def _note(self, at: datetime, what: str) -> None:
        if self.problem is None:
            self.problem = f"The grid {self.source} {what} (asked for {at:%Y-%m-%dT%H:%MZ})."
