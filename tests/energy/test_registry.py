"""Parsing of the ``meter=`` argument, and meters of other packages."""

import builtins

import pytest

from lightning_green.energy.auto import AutoMeter
from lightning_green.energy.carbontracker import CarbonTrackerMeter
from lightning_green.energy.codecarbon import CodeCarbonMeter
from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.meter import Meter
from lightning_green.energy.none import NoMeter
from lightning_green.energy.nvml import NvmlMeter
from lightning_green.energy.rapl import RaplMeter
from lightning_green.energy.registry import METERS, build_meter
from lightning_green.energy.slurm import SlurmMeter
from tests.helpers.distributions import installed_distribution
from tests.helpers.powercap import counters, set_counter

RACK = """
from lightning_green.energy import Energy, Meter


class RackMeter(Meter):
    name = "rack"

    def start(self):
        pass

    def read(self):
        return {"other": Energy(42.0, "measured")}

    def close(self):
        pass


def not_a_meter():
    pass
"""


def test_every_form_of_the_argument():
    meter = ConstantPowerMeter(5.0)
    assert build_meter(meter).watts == meter.watts
    assert isinstance(build_meter(None), NoMeter)
    assert isinstance(build_meter("none"), NoMeter)
    assert isinstance(build_meter("auto"), AutoMeter)
    assert isinstance(build_meter("nvml"), NvmlMeter)
    assert isinstance(build_meter("rapl"), RaplMeter)
    assert isinstance(build_meter("codecarbon"), CodeCarbonMeter)
    assert isinstance(build_meter("carbontracker"), CarbonTrackerMeter)
    assert isinstance(build_meter("slurm"), SlurmMeter)
    assert build_meter("auto:node").share == "node"
    assert build_meter("rapl").share == "job"
    assert build_meter(250).watts == {"other": 250.0}
    assert build_meter("250 W").watts == {"other": 250.0}


def test_meter_object_measures_in_every_fit(tmp_path):
    folder = counters(tmp_path / "powercap", packages=1, dram=False)
    given = RaplMeter(every="60s", powercap=folder, share="node")
    for fit in (1, 2):
        meter = build_meter(given)
        meter.start()
        set_counter(folder, "intel-rapl:0", fit * 3_000_000)
        meter.sample()
        assert meter.read() == {"cpu": (3.0, "measured")}
        meter.close()
    assert given.read() == {}


@pytest.mark.parametrize("given", [NvmlMeter(), CodeCarbonMeter(), AutoMeter()], ids=lambda meter: meter.name)
def test_gpus_of_a_fit_are_not_those_of_the_next(given):
    for gpus in (["0"], ["1"]):
        meter = build_meter(given)
        meter.bind_gpus(gpus)
        assert meter.gpu_ids == gpus
    assert given.gpu_ids is None


def test_custom_meter_without_a_state_of_its_own_is_used_itself():
    class Fed(Meter):
        name = "fed"

        def start(self):
            pass

        def read(self):
            return {}

        def close(self):
            pass

    meter = Fed()
    assert build_meter(meter) is meter


def test_unknown_meter_raises_with_choices():
    with pytest.raises(
        ValueError, match='`meter` should be a Meter, "auto", "nvml", "rapl", "codecarbon", "carbontracker"'
    ):
        build_meter("wattmeter")
    with pytest.raises(TypeError, match='`meter` should be a Meter, "auto"'):
        build_meter([3.0])
    with pytest.raises(ValueError, match="`watts` should be finite"):
        build_meter(-3.0)


def test_missing_extra_raises_with_install_command(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("carbontracker"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-green\[carbontracker\]'"):
        build_meter("carbontracker")


@pytest.fixture
def rack(tmp_path, monkeypatch):
    points = {"rack": "rack_meter:RackMeter", "broken": "rack_meter:not_a_meter", "nvml": "rack_meter:RackMeter"}
    with installed_distribution(tmp_path, monkeypatch, METERS, points, {"rack_meter": RACK}):
        yield


@pytest.mark.filterwarnings("ignore:The entry point 'nvml'")
def test_entry_point_adds_meter(rack):
    meter = build_meter("Rack")
    assert meter.read() == {"other": (42.0, "measured")}
    with pytest.raises(ValueError, match='"slurm", "rack", "broken", a number of watts'):
        build_meter("wattmeter")


def test_entry_point_does_not_replace_built_in_meter(rack):
    with pytest.warns(UserWarning, match=r"'nvml' of lightning_green.energy \(rack_meter:RackMeter\) is ignored"):
        assert isinstance(build_meter("rack"), METERS["rack"])
    assert isinstance(build_meter("nvml"), NvmlMeter)


@pytest.mark.filterwarnings("ignore:The entry point 'nvml'")
def test_entry_point_that_is_not_a_meter_raises(rack):
    with pytest.raises(TypeError, match=r"'broken' should be a subclass of lightning_green\.energy\.Meter"):
        build_meter("broken")
