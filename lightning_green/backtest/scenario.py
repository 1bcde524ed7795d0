"""The job of a backtest, and the hours in which it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from lightning_green.backtest.simulator import FULL, Simulator
from lightning_green.backtest.zone_archive import ZoneArchive
from lightning_green.planning.job import HOLD_POWER, PAUSES, Job, Level, State
from lightning_green.planning.prices import PriceSeries
from lightning_green.utilities.validation import check_number

DAY = 24
HOUR = 3600.0
PRICES_PUBLISHED_HOUR = 12
"""UTC hour from which the day-ahead prices of the next day are known."""
WHOLE_NUMBERS = (("start_hour", 0, 23), ("every_days", 1, 366), ("lag_hours", 0, 2 * DAY), ("perfect_hours", 0, 8760))
"""Arguments that are whole numbers, with their limits."""
HISTORY_DAYS = 7
"""Days of history before the first start if there are no forecasts."""


@dataclass(frozen=True)
class Scenario:
    """A job that starts again every few days, and its costs.

    Args:
        work_hours: Work in hours at full power.
        window_hours: Hours from the start to the deadline.
        hold_power: Fraction of full power drawn while held.
        resume_hours: Energy of an exit and restart, in hours at full power.
        throttle: Operating points in addition to full power.
        start_hour: UTC hour of every start.
        every_days: Days between two starts.
        lag_hours: Delay in hours after which an intensity is known; 1 hides the current hour.
        pauses: Allowed pauses.
        return_hours: Hours from starting an exited job again to its first work.
        out_power: Fraction of full power drawn while exited.
        perfect_hours: Hours of each forecast, from the current hour on, that have the recorded values.
        prices: Electricity prices, for a planner that minimizes the cost of electricity and carbon; None otherwise.
        carbon_price: Money per kg CO2e, used with ``prices``.

    Raises:
        ValueError: If an argument is out of its range.

    """

    work_hours: float = 24.0
    window_hours: float = 48.0
    hold_power: float = HOLD_POWER
    resume_hours: float = 0.1
    throttle: tuple[Level, ...] = ()
    start_hour: int = 9
    every_days: int = 2
    lag_hours: int = 1
    pauses: frozenset[str] = field(default=PAUSES)
    return_hours: float = 0.0
    out_power: float = 0.0
    perfect_hours: int = 0
    prices: PriceSeries | None = None
    carbon_price: float = 0.0

    def __post_init__(self) -> None:
        check_number("work_hours", self.work_hours, above_low=True, unit="hours")
        check_number("window_hours", self.window_hours, above_low=True, unit="hours")
        for name in ("hold_power", "out_power"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        check_number("return_hours", self.return_hours, unit="hours")
        check_number("resume_hours", self.resume_hours, unit="hours at full power")
        for name, low, high in WHOLE_NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"`{name}` should be a whole number from {low} to {high}, got {value!r}.")
        Job(self.work_hours, levels=self.levels, pauses=self.pauses, carbon_price=self.carbon_price)

    @property
    def levels(self) -> tuple[Level, ...]:
        """All operating points. The first is full power."""
        return (FULL, *self.throttle)

    def starts(self, archive: ZoneArchive) -> list[int]:
        """Return the start hours of all runs whose whole window is recorded.

        With forecasts, runs start between the first issuance and a day after the last one. Without, from the eighth
        recorded day on.

        Args:
            archive: Recorded intensities and forecasts.

        """
        first, last = archive.first + HISTORY_DAYS * DAY, archive.end
        if len(archive.issued):
            first, last = max(archive.first, int(archive.issued[0])), min(last, int(archive.issued[-1]) + DAY)
        day = math.ceil(first / DAY)
        if day * DAY - DAY + self.start_hour >= first:
            day -= 1
        hours = range(day * DAY + self.start_hour, last, self.every_days * DAY)
        needed = math.ceil(max(self.window_hours, self.work_hours))
        return [hour for hour in hours if hour + needed <= archive.end]

    def job(self, hour: int, remaining_work: float, hours_to_deadline: float, state: State = "running") -> Job:
        """Return the job of a run for the planner.

        Args:
            hour: Time of planning in hours since 1970 (UTC).
            remaining_work: Remaining work in hours at full power.
            hours_to_deadline: Hours until the deadline.
            state: Current state of the job.

        """
        now = datetime.fromtimestamp(hour * 3600, timezone.utc)
        return Job(
            remaining_work,
            deadline=now + timedelta(hours=hours_to_deadline),
            levels=self.levels,
            hold_power=self.hold_power,
            resume_cost=self.resume_hours,
            pauses=self.pauses,
            state=state,
            safety=0.0,
            return_time=self.return_hours,
            out_power=self.out_power,
            prices=self._published_prices(hour),
            carbon_price=self.carbon_price,
        )

    def _published_prices(self, hour: int) -> PriceSeries | None:
        """Return the prices that are published at an hour, with the week before it."""
        if self.prices is None:
            return None
        until = (hour // DAY + (2 if hour % DAY >= PRICES_PUBLISHED_HOUR else 1)) * DAY
        return self.prices.between((hour - (HISTORY_DAYS + 1) * DAY) * HOUR, until * HOUR)

    def simulator(self) -> Simulator:
        """Return a simulator of the job before its first hour."""
        return Simulator(
            self.work_hours,
            hold_power=self.hold_power,
            resume_cost=self.resume_hours,
            return_time=self.return_hours,
            out_power=self.out_power,
        )
