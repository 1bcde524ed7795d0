"""The contract of a meter."""

from typing import get_args

import pytest

from lightning_green.energy.meter import COMPONENTS, Component, Energy, Meter


class RackMeter(Meter):
    name = "rack"

    def start(self):
        pass

    def read(self):
        return {"other": Energy(42.0, "measured")}

    def close(self):
        pass


def test_meter_needs_only_start_read_and_close():
    with pytest.raises(TypeError, match=r"close.*read.*start"):
        Meter()
    meter = RackMeter()
    assert meter.problem is None
    assert meter.describe() == "rack"


def test_meter_ignores_clock_gpus_load_and_samples_by_default():
    meter = RackMeter()
    meter.bind_clock(lambda: 0.0)
    meter.bind_gpus(["0"])
    meter.set_load(0.5)
    meter.sample()
    assert meter.read() == {"other": (42.0, "measured")}


def test_components_are_those_of_the_type():
    assert get_args(Component) == COMPONENTS
