"""Carbon intensity of the coming hours, and its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from lightning_green.utilities.validation import check_aware, check_series, check_times

KINDS = ("average/lifecycle", "average/direct", "marginal/lifecycle", "marginal/direct")


@dataclass(frozen=True)
class Forecast:
    """Carbon intensity of the coming hours, and recorded intensities of the past.

    Args:
        times: Start of each interval, aware, ascending, shape ``(n,)``. An interval ends at the next time. The last one
            is as long as the one before it, or an hour if there is only one.
        values: Carbon intensity in gCO2e/kWh, shape ``(n,)``.
        spread: Standard deviation of each value in gCO2e/kWh, shape ``(n,)``, or None if unknown.
        kind: Kind of intensity, for example ``"average/lifecycle"``. Two kinds are never mixed.
        issued_at: Time at which the forecast was issued, or None if unknown.
        history_times: Start of each past interval, aware, ascending, shape ``(m,)``. May have gaps.
        history_values: Recorded carbon intensity in gCO2e/kWh, shape ``(m,)``, of the same kind.

    Attributes:
        seconds: ``times`` in POSIX seconds, shape ``(n,)``.
        history_seconds: ``history_times`` in POSIX seconds, shape ``(m,)``.

    Raises:
        ValueError: If the lengths differ, a time is naive or out of order, a value is negative or not finite, the
            forecast has a gap, or the kind is unknown.

    Examples:
        >>> start = datetime(2024, 5, 1, tzinfo=timezone.utc)
        >>> Forecast([start.replace(hour=hour) for hour in range(3)], [310.0, 280.0, 295.0]).end.hour
        3

    """

    times: Sequence[datetime]
    values: NDArray[np.float64]
    spread: NDArray[np.float64] | None = None
    kind: str = "average/lifecycle"
    issued_at: datetime | None = None
    history_times: Sequence[datetime] = ()
    history_values: NDArray[np.float64] | None = None
    seconds: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    history_seconds: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seconds = check_times("times", self.times)
        object.__setattr__(self, "seconds", seconds)
        object.__setattr__(self, "values", check_series("values", self.values, len(seconds), "times"))
        if self.spread is not None:
            object.__setattr__(self, "spread", check_series("spread", self.spread, len(seconds), "times"))
        if self.kind not in KINDS:
            raise ValueError(f"`kind` should be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if self.issued_at is not None:
            check_aware("issued_at", self.issued_at)
        past = check_times("history_times", self.history_times)
        object.__setattr__(self, "history_seconds", past)
        history = () if self.history_values is None else self.history_values
        checked = check_series("history_values", np.asarray(history, dtype=np.float64), len(past), "history_times")
        object.__setattr__(self, "history_values", checked)
        steps = np.diff(seconds)
        # Slots are at most an hour long, so an interval may last an hour; longer only if that is the usual step.
        if steps.size and steps.max() > max(3600.0, 1.5 * float(np.median(steps))) + 1e-6:
            at = int(np.argmax(steps))
            raise ValueError(
                f"`times` should have no gap, got {steps[at] / 3600:g} h between {self.times[at].isoformat()} and "
                f"{self.times[at + 1].isoformat()}, and the usual step is {np.median(steps) / 3600:g} h."
            )

    @property
    def end(self) -> datetime | None:
        """End of the last interval; None for an empty forecast."""
        if not self.times:
            return None
        last = self.times[-1].timestamp()
        step = last - self.times[-2].timestamp() if len(self.times) > 1 else 3600.0
        return datetime.fromtimestamp(last + step, timezone.utc)
