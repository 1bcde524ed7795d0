"""What a meter would measure, before a training."""

import threading

import pytest

from lightning_green.energy.auto import AutoMeter
from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.meter import Energy, Meter
from lightning_green.energy.none import NoMeter
from lightning_green.energy.rapl import RaplMeter
from lightning_green.energy.survey import survey
from tests.helpers.powercap import counters, set_counter


class Scripted(Meter):
    """Counts 5 J a reading, or raises."""

    name = "scripted"
    joules = 0.0

    def __init__(self, error=None):
        self.error = error

    def start(self):
        if self.error:
            raise self.error

    def read(self):
        self.joules += 5.0
        return {"other": Energy(self.joules, "measured")}

    def close(self):
        pass


def test_power_is_energy_over_the_time_of_the_survey():
    found = survey(ConstantPowerMeter({"gpu": 300, "cpu": 80}), 0.2)
    assert [(one.component, one.quality) for one in found.components] == [("cpu", "modelled"), ("gpu", "modelled")]
    assert [one.watts for one in found.components] == pytest.approx([80, 300], rel=0.5)
    assert found.is_known
    assert found.seconds >= 0.2


def test_each_component_has_its_source_and_quality(driver, tmp_path):
    meter = AutoMeter(every="0.1s", powercap=counters(tmp_path / "powercap"))
    begin = threading.Timer(0.3, set_counter, (tmp_path / "powercap", "intel-rapl:0", 5_000_000))
    begin.start()
    found = {one.component: one for one in survey(meter, 0.6).components}
    assert (found["gpu"].quality, found["gpu"].source) == ("measured", "NVML")
    assert (found["cpu"].quality, found["cpu"].source) == (
        "modelled",
        "RAPL; share, modelled from measured package energy",
    )
    assert 0.0 <= found["cpu"].watts <= 5.0 / 0.6


def test_sensor_that_is_missing_has_a_reason(tmp_path):
    found = survey(RaplMeter(powercap=tmp_path), 0.05)
    assert [(one.quality, one.watts) for one in found.components] == [("unavailable", None)]
    assert not found.is_known
    assert found.problems == (f"This machine has no RAPL ({tmp_path} contains no zone of a package).",)


def test_sensor_that_auto_does_not_use_has_a_reason(tmp_path):
    found = survey(AutoMeter(powercap=tmp_path), 0.05)
    assert {one.component: one.source for one in found.components} == {
        "cpu": "codecarbon, share of the job",
        "ram": "codecarbon, share of the job",
    }
    assert any("no RAPL" in problem for problem in found.problems)
    assert any("GPUs cannot be read" in problem for problem in found.problems)


def test_meter_that_raises_is_unavailable():
    found = survey(Scripted(OSError("no such device")), 0.05)
    assert not found.is_known
    assert "no such device" in found.problems[0]


def test_no_meter_counts_nothing():
    found = survey(NoMeter(), 0.05)
    assert found.components == ()
    assert not found.is_known


def test_survey_is_json_and_leaves_no_thread():
    found = survey(Scripted(), 0.05).to_json()
    assert found["components"][0]["component"] == "other"
    assert found["components"][0]["watts"] > 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lightning-green meter")]
