"""Grid signals with known intensities and wrong forecasts."""

from datetime import datetime, timedelta, timezone

from lightning_green.grid.signal import GridSignal, Reading, SignalKind
from lightning_green.planning import Forecast

START = datetime(2024, 5, 2, tzinfo=timezone.utc)


class MorningsLookClean(GridSignal):
    """600 gCO2e/kWh, 300 from 12 to 18 UTC. Forecasts are wrong: ``promised`` from 6 to 12 UTC on every day.

    Args:
        promised: Predicted intensity of the mornings in gCO2e/kWh.
        days: Days of history in a forecast.

    """

    kind, source = SignalKind(), "mornings"

    def __init__(self, promised=100.0, days=8, zone="ZZ"):
        self.promised, self.days, self.zone = promised, days, zone

    def true(self, time):
        return 300.0 if 12 <= time.hour < 18 else 600.0

    def predicted(self, time):
        return self.promised if 6 <= time.hour < 12 else self.true(time)

    def intensity(self, at):
        return Reading(self.true(at), self.kind, self.source, self.zone, measured_at=at)

    def forecast(self, now, horizon):
        hour = now.replace(minute=0, second=0, microsecond=0)
        history = [hour - timedelta(hours=back) for back in range(24 * self.days, 0, -1)]
        ahead = [hour + timedelta(hours=lead) for lead in range(48)]
        return Forecast(
            ahead, [self.predicted(time) for time in ahead], issued_at=now,
            history_times=history, history_values=[self.true(time) for time in history],
        )  # fmt: skip

    def spec(self):
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": {"promised": self.promised, "days": self.days, "zone": self.zone},
        }
