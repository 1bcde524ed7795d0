from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.grid.providers.neso import NesoSignal
from lightning_green.grid.providers.watttime import WattTimeSignal

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
