"""Carbon intensity from a callable."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.providers.function import FunctionSignal

NOW = datetime(2026, 3, 1, 10, 20, tzinfo=timezone.utc)


def by_hour(at: datetime) -> float:
    return 100.0 + at.hour


def test_callable_gets_the_start_of_the_interval():
    signal = FunctionSignal(by_hour, zone="DE")
    reading = signal.intensity(NOW)
    assert (reading.value, reading.measured_at.minute, reading.source) == (110.0, 0, "function by_hour")
    assert signal.mean(NOW, NOW + timedelta(hours=1)) == pytest.approx((40 * 110 + 20 * 111) / 60)
    forecast = signal.forecast(NOW, timedelta(hours=2))
    assert list(forecast.values) == [110.0, 111.0, 112.0]
    assert len(forecast.history_times) == 8 * 24
    assert signal.spec() is None


def test_finer_resolution():
    signal = FunctionSignal(lambda at: float(at.minute), resolution="15m")
    assert signal.intensity(NOW).value == 15.0
    assert signal.resolution() == timedelta(minutes=15)


@pytest.mark.parametrize("answer", [None, "clean", float("nan"), float("inf"), -3.0, True, [1.0]])
def test_invalid_result_is_none_and_sets_the_problem_once(answer):
    signal = FunctionSignal(lambda at: answer)
    assert signal.intensity(NOW) is None
    first = signal.problem
    assert "not a finite number of gCO2e/kWh" in first
    assert signal.forecast(NOW, timedelta(hours=2)) is None
    assert signal.mean(NOW, NOW + timedelta(hours=1)) is None
    assert signal.problem is first


def test_exception_of_the_callable_is_none():
    def broken(at):
        raise KeyError("no data")

    signal = FunctionSignal(broken)
    assert signal.intensity(NOW) is None
    assert "raised KeyError" in signal.problem


def test_forecast_ends_at_the_first_failure():
    def short(at):
        if at > NOW + timedelta(hours=2):
            raise LookupError("beyond")
        return 5.0

    assert len(FunctionSignal(short).forecast(NOW, timedelta(hours=24)).values) == 3


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="`function` should be a callable"):
        FunctionSignal(3.0)
    with pytest.raises(ValueError, match="`resolution` should be"):
        FunctionSignal(by_hour, resolution="0s")
