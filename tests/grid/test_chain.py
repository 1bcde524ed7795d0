"""Sources with fallbacks, also during an outage of the preferred source."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.grid.providers.neso import NesoSignal
from lightning_green.grid.providers.watttime import WattTimeSignal
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import NOW

HOUR = timedelta(hours=1)
AT = datetime(2026, 1, 15, 10, 20, tzinfo=timezone.utc)


def test_sources_of_different_kinds_are_refused():
    for mixed in (NesoSignal(), WattTimeSignal("CAISO_NORTH"), ConstantSignal(1.0, kind="marginal/direct")):
        with pytest.raises(ValueError, match=r"average and marginal, direct and lifecycle are never mixed"):
            ChainSignal(ConstantSignal(300.0), fallback=[mixed])
    with pytest.raises(ValueError, match="at least one source"):
        ChainSignal(ConstantSignal(300.0), fallback=[])
    with pytest.raises(ValueError, match="None"):
        ChainSignal(ConstantSignal(300.0), fallback=[None])


def test_first_source_with_a_value_is_used_and_each_change_is_reported_once():
    known = {"first": True}

    def first(at):
        return 100.0 if known["first"] else float("nan")

    signal = ChainSignal(FunctionSignal(first, zone="DE"), fallback=[ConstantSignal(381.0)])
    assert signal.intensity(AT).value == 100.0
    assert signal.pop_messages() == []
    known["first"] = False
    for _ in range(3):
        assert signal.intensity(AT).value == 381.0
    assert signal.pop_messages() == ["The grid source changes from function first to constant."]
    assert signal.source == "constant"
    assert "finite number" in signal.problem
    known["first"] = True
    assert signal.intensity(AT).value == 100.0
    assert signal.pop_messages() == ["The grid source changes from constant to function first."]
    assert signal.zone == "DE"


def test_first_source_with_a_forecast_is_used():
    def nothing(at):
        return float("nan")

    signal = ChainSignal(FunctionSignal(nothing), fallback=[ConstantSignal(381.0)])
    forecast = signal.forecast(AT, timedelta(hours=24))
    assert set(forecast.values) == {381.0}
    assert ChainSignal(FunctionSignal(nothing), [FunctionSignal(nothing)]).forecast(AT, timedelta(hours=2)) is None
    assert ChainSignal(FunctionSignal(nothing), [FunctionSignal(nothing)]).intensity(AT) is None
    assert signal.mean(AT, AT + timedelta(hours=3)) == 381.0


def test_last_forecast_is_used_for_four_hours_and_then_the_next_source(grid, build):
    chain = ChainSignal(build("em"), fallback=[build("charts")])
    chain.refresh(NOW)
    grid.faults = {"em": "500"}
    seen = []
    for hours in range(9):
        grid.now = at = NOW + HOUR * hours
        if hours == 7:
            grid.faults = {}
        chain.refresh(at, force=hours == 7)
        reading = chain.intensity(at)
        assert reading.value == pytest.approx(solar_day(at))
        assert chain.forecast(at, HOUR * 12).end >= at + HOUR * 11
        seen.append(reading.source)
    assert seen == ["electricity-maps"] * 5 + ["energy-charts"] * 2 + ["electricity-maps"] * 2
    changes = [message for message in chain.pop_messages() if "changes from" in message]
    assert changes == [
        "The grid source changes from electricity-maps to energy-charts.",
        "The grid source changes from energy-charts to electricity-maps.",
    ]


def test_old_forecast_is_preferred_to_an_earlier_day(grid, build):
    chain = ChainSignal(build("em"), fallback=[build("charts")])
    chain.refresh(NOW)
    grid.faults = {None: "reset"}
    for hours in range(1, 40):
        grid.now = at = NOW + HOUR * hours
        chain.refresh(at)
        reading = chain.intensity(at)
        assert reading.quality == "forecast"
        assert reading.value == pytest.approx(solar_day(at))
    for hours in range(60, 70):  # beyond the horizon: the hours of the day before, marked as estimates
        assert chain.intensity(NOW + HOUR * hours).quality == "estimated"
    assert chain.intensity(NOW + timedelta(days=10)) is None
    assert chain.forecast(NOW + timedelta(days=20), HOUR * 12) is None


def test_measured_mean_uses_no_static_source():
    def known_until_ten(at):
        return 100.0 if at.hour < 10 else float("nan")

    chain = ChainSignal(FunctionSignal(known_until_ten), fallback=[ConstantSignal(381.0)])
    start = AT.replace(hour=8, minute=0)
    assert chain.measured_mean(start, start + HOUR * 2) == 100.0
    assert chain.measured_mean(start, start + HOUR * 3) is None
    assert chain.mean(start, start + HOUR * 4) == pytest.approx((2 * 100.0 + 2 * 381.0) / 4)
    assert not [message for message in chain.pop_messages() if "changes from" in message]
    static = ChainSignal(ConstantSignal(381.0), fallback=[ConstantSignal(300.0)])
    assert static.measured_mean(start, start + HOUR) == 381.0
    assert ConstantSignal(381.0).measured_mean(start, start + HOUR) == 381.0


def test_forecast_signal_is_the_part_that_the_forecast_comes_from():
    static = ConstantSignal(381.0)
    chain = ChainSignal(FunctionSignal(lambda at: float("nan")), fallback=[static])
    assert chain.forecast_signal(AT, HOUR * 12) is static
    assert ChainSignal(static, [ConstantSignal(1.0)]).forecast_signal(AT, HOUR) is static
