import builtins

import pytest

from lightning_green.energy.auto import AutoMeter
from lightning_green.energy.carbontracker import CarbonTrackerMeter
from lightning_green.energy.codecarbon import CodeCarbonMeter
from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.none import NoMeter
from lightning_green.energy.nvml import NvmlMeter
from lightning_green.energy.rapl import RaplMeter
from lightning_green.energy.registry import build_meter


def test_every_way_to_name_a_meter():
    meter = ConstantPowerMeter(5.0)
    assert build_meter(meter) is meter
    assert isinstance(build_meter(None), NoMeter)
    assert isinstance(build_meter("none"), NoMeter)
    assert isinstance(build_meter("auto"), AutoMeter)
    assert isinstance(build_meter("nvml"), NvmlMeter)
    assert isinstance(build_meter("rapl"), RaplMeter)
    assert isinstance(build_meter("codecarbon"), CodeCarbonMeter)
    assert isinstance(build_meter("carbontracker"), CarbonTrackerMeter)
    assert build_meter(250).watts == {"other": 250.0}
    assert build_meter("250 W").watts == {"other": 250.0}


def test_unknown_meters_list_the_choices():
    with pytest.raises(
        ValueError, match='`meter` should be a Meter, "auto", "nvml", "rapl", "codecarbon", "carbontracker"'
    ):
        build_meter("wattmeter")
    with pytest.raises(TypeError, match='`meter` should be a Meter, "auto"'):
        build_meter([3.0])
    with pytest.raises(ValueError, match="`watts` should be finite"):
        build_meter(-3.0)


def test_a_missing_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("carbontracker"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-green\[carbontracker\]'"):
        build_meter("carbontracker")


def test_no_meter_reads_nothing():
    meter = NoMeter()
    meter.start()
    assert meter.read() == {}
    meter.close()
