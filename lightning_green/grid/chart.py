"""Carbon intensity over time as a text chart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from lightning_green.planning.forecast import Forecast
from lightning_green.planning.slots import make_slots

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_FILLED = "░"


def hourly_values(forecast: Forecast, now: datetime, hours: int) -> list[float]:
    """Return the mean of each of the next ``hours`` hours, as the planner uses them; empty if unknown."""
    slots = make_slots(forecast, now.timestamp(), float(hours))
    if slots is None:
        return []
    # The integral over time is piecewise linear, so its hourly differences are the means.
    integral = np.concatenate(([0.0], np.cumsum(slots.hours * slots.values)))
    at = np.interp(np.arange(hours + 1.0), slots.edges, integral)
    return [float(value) for value in np.diff(at)]


def chart(values: Sequence[float], now: datetime, known: int | None = None, height: int = 7) -> list[str]:
    """Return the lines of a bar chart with one column per hour.

    Args:
        values: Mean carbon intensity of each hour in gCO2e/kWh, 0 or more.
        now: Start of the first hour, aware. The labels are in its time zone.
        known: Number of hours that a forecast covers; the others are drawn lighter. None for all.
        height: Number of lines.

    Raises:
        ValueError: If ``values`` is empty or ``height`` is below 1.

    Examples:
        >>> from datetime import timezone
        >>> for line in chart([100, 200, 400], datetime(2026, 1, 1, 22, tzinfo=timezone.utc), height=2): print(line)
        400 ┤  █
          0 ┤▄██
             22

    """
    if not values or height < 1:
        raise ValueError(f"`values` should not be empty and `height` should be 1 or more, got {values!r}, {height!r}.")
    known = len(values) if known is None else known
    top = max(*values, 1.0) if len(values) > 1 else max(values[0], 1.0)
    width = max(3, len(f"{top:.0f}"))
    lines = []
    for row in range(height - 1, -1, -1):
        cells = []
        for hour, value in enumerate(values):
            part = round(value / top * height * 8) - row * 8
            full = _EIGHTHS[min(max(part, 0), 8)]
            cells.append(_FILLED if hour >= known and part > 0 else full)
        label = {height - 1: f"{top:.0f}", 0: "0"}.get(row, "")
        if height > 2 and row == height // 2:
            label = f"{top * row / height:.0f}"
        lines.append(f"{label:>{width}} ┤{''.join(cells)}".rstrip())
    lines.append(" " * (width + 2) + _time_axis(now, len(values)))
    return lines


def _time_axis(now: datetime, hours: int) -> str:
    cells = [" "] * (hours + 2)
    free = 0
    for hour in range(hours):
        at = now + timedelta(hours=hour)
        if hour >= free and (hour == 0 or at.hour % 6 == 0):
            cells[hour : hour + 2] = f"{at.hour:02d}"
            free = hour + 3
    return "".join(cells).rstrip()
