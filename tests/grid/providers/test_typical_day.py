"""The built-in typical day."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from lightning_green.grid.providers.typical_day import TypicalDay
from lightning_green.grid.spec import grid_from_spec

MONDAY = datetime(2026, 3, 2, tzinfo=timezone.utc)


@pytest.mark.parametrize("zone", ["DE", "USA", "JP", "NZ", "IND", "BR"])
def test_mean_of_a_week_is_the_annual_mean(zone):
    signal = TypicalDay(zone)
    assert signal.mean(MONDAY, MONDAY + timedelta(days=7)) == pytest.approx(signal.figure.value, rel=0.005)


def test_clean_at_local_noon_and_dirty_in_the_evening():
    for zone, noon_utc in (("GB", 12), ("JP", 3), ("US", 18)):
        signal = TypicalDay(zone)
        day = [signal.intensity(MONDAY + timedelta(days=1, hours=hour)).value for hour in range(24)]
        assert min(abs(int(np.argmin(day)) - noon_utc), 24 - abs(int(np.argmin(day)) - noon_utc)) <= 1, zone
        assert max(day) > 1.3 * min(day)


def test_weekend_is_cleaner_than_a_weekday():
    signal = TypicalDay("DE")
    friday = signal.intensity(MONDAY + timedelta(days=4, hours=12)).value
    saturday = signal.intensity(MONDAY + timedelta(days=5, hours=12)).value
    assert saturday == pytest.approx(0.92 * friday)


def test_typical_day_is_labeled_and_deterministic():
    signal = TypicalDay("DE")
    reading = signal.intensity(MONDAY)
    assert reading.quality == "static"
    assert "not data" in signal.describe()
    forecast = grid_from_spec(signal.spec()).forecast(MONDAY, timedelta(hours=48))
    assert forecast.values[0] == reading.value
    assert len(forecast.values) == 48
    assert len(forecast.history_values) == 8 * 24


def test_unknown_zone_is_refused():
    with pytest.raises(ValueError, match="`zone` should be an Electricity Maps zone"):
        TypicalDay("Atlantis")
