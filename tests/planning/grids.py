"""Grids for the tests: intensities that are known in advance, and forecasts of them that are wrong in one way."""

from datetime import datetime, timedelta, timezone

from lightning_green.grid.signal import GridSignal, Reading, SignalKind
from lightning_green.planning import Forecast

START = datetime(2024, 5, 2, tzinfo=timezone.utc)


class MorningsLookClean(GridSignal):
    """600 gCO2e/kWh, 300 from 12 to 18 UTC; forecasts say ``promised`` for 6 to 12 UTC, every day, and are wrong.

    Args:
        promised: What forecasts say about the mornings, in gCO2e/kWh.
        days: Days of history that a forecast carries.

    """

    kind, source = SignalKind(), "mornings"

    def __init__(self, promised=100.0, days=8, zone="ZZ"):
        self.promised, self.days, self.zone = promised, days, zone

    def true(self, time):
        return 300.0 if 12 <= time.hour < 18 else 600.0

    def said(self, time):
        return self.promised if 6 <= time.hour < 12 else self.true(time)

    def intensity(self, at):
        return Reading(self.true(at), self.kind, self.source, self.zone, measured_at=at)

    def forecast(self, now, horizon):
        hour = now.replace(minute=0, second=0, microsecond=0)
        past = [hour - timedelta(hours=back) for back in range(24 * self.days, 0, -1)]
        ahead = [hour + timedelta(hours=lead) for lead in range(48)]
        return Forecast(
            ahead, [self.said(time) for time in ahead], issued_at=now,
            history_times=past, history_values=[self.true(time) for time in past],
        )  # fmt: skip

    def spec(self):
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": {"promised": self.promised, "days": self.days, "zone": self.zone},
        }
