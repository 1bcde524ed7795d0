"""Carbon intensity as a planner sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Forecast:
    """Carbon intensity over the coming hours, and what it was in the past.

    Args:
        times: Start of each interval, aware, ascending, shape ``(n,)``. A value holds until the next time; the last one
            for as long as the interval before it.
        values: Carbon intensity in gCO2e/kWh, shape ``(n,)``.
        spread: Standard deviation of each value in gCO2e/kWh, shape ``(n,)``, or None where the source gives none.
        kind: What the numbers mean, ``"average/lifecycle"`` for example. Two kinds are never mixed.
        issued_at: When the forecast was made; None where the source does not say.
        history_times: Start of each past interval, aware, ascending, shape ``(m,)``.
        history_values: Past carbon intensity in gCO2e/kWh, shape ``(m,)``.

    Raises:
        ValueError: If the lengths differ, a time is naive or out of order, or a value is negative or not finite.

    """

    times: Sequence[datetime]
    values: NDArray[np.float64]
    spread: NDArray[np.float64] | None = None
    kind: str = "average/lifecycle"
    issued_at: datetime | None = None
    history_times: Sequence[datetime] = ()
    history_values: NDArray[np.float64] | None = None
