"""A constant carbon intensity."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.providers.constant import ConstantSignal

NOW = datetime(2026, 3, 1, 10, 20, tzinfo=timezone.utc)


def test_reading_forecast_and_mean():
    signal = ConstantSignal(381.0, zone="DE")
    reading = signal.intensity(NOW)
    assert (reading.value, reading.zone, reading.quality, str(reading.kind)) == (
        381.0,
        "DE",
        "static",
        "average/lifecycle",
    )
    forecast = signal.forecast(NOW, timedelta(hours=3))
    assert forecast.times[0] <= NOW < forecast.times[1]
    assert forecast.times[-1] + timedelta(hours=1) >= NOW + timedelta(hours=3)
    assert set(forecast.values) == {381.0}
    assert signal.mean(NOW, NOW + timedelta(days=30)) == 381.0
    assert signal.covers_until() is None


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_intensity_is_refused(value):
    with pytest.raises(ValueError, match="`intensity` should be a finite number"):
        ConstantSignal(value)


@pytest.mark.parametrize("value", ["300", None, True])
def test_non_number_is_refused(value):
    with pytest.raises(TypeError, match="`intensity` should be a number"):
        ConstantSignal(value)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="`method` should be"):
        ConstantSignal(300.0, kind="cheap/lifecycle")
