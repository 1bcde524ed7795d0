"""Sampling of a sensor, with a sensor that tests set."""

import pickle
import threading
from datetime import timedelta

import pytest

from lightning_green.energy.sampled import SampledMeter


class SensorMeter(SampledMeter):
    """Adds ``added`` at each sample."""

    name = "sensor"

    def __init__(self, quality="measured", every="60s"):
        self.given = quality
        super().__init__(every)

    def _reset(self):
        super()._reset()
        self._added, self._opened, self._released = {}, 0, 0

    def _open_sensor(self):
        self._opened += 1
        return {"cpu": self.given}

    def _read_sensor(self):
        return self._added

    def _close_sensor(self):
        self._released += 1


@pytest.fixture
def meter():
    meter = SensorMeter()
    meter.start()
    yield meter
    meter.close()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "lightning-green sensor"]


def test_read_returns_the_last_sample_and_takes_none(meter):
    meter._added = {"cpu": 5.0}
    assert meter.read() == {"cpu": (0.0, "measured")}
    meter.sample()
    meter.sample()
    assert meter.read() == {"cpu": (10.0, "measured")}


def test_second_start_opens_nothing(meter):
    meter._added = {"cpu": 5.0}
    meter.sample()
    meter.start()
    assert meter._opened == 1
    assert meter.read()["cpu"].joules == 5.0


def test_at_rest_there_is_no_thread_and_a_sample_counts_all_energy(meter):
    meter.rest()
    assert threads() == []
    meter._added = {"cpu": 5.0}
    meter._mark_estimated("cpu")  # as after a long time between two samples
    meter.sample()
    assert meter.read() == {"cpu": (5.0, "modelled")}
    meter.wake()
    assert len(threads()) == 1
    meter.sample()
    assert meter.read() == {"cpu": (10.0, "measured")}


@pytest.mark.parametrize("opened", [True, False])
def test_close_at_rest_takes_a_last_sample_and_closes_the_sensor(opened):
    meter = SensorMeter("measured" if opened else "unavailable")
    meter.start()
    meter.rest()
    meter._added = {"cpu": 5.0}
    meter.close()
    assert meter._released == opened
    assert meter.read()["cpu"].joules == 5.0 * opened
    assert threads() == []


def test_energy_never_decreases(meter):
    for joules in (5.0, -3.0):
        meter._added = {"cpu": joules}
        meter.sample()
    assert meter.read()["cpu"].joules == 5.0


def test_failed_sensor_keeps_the_last_value(meter):
    meter._added = {"cpu": 5.0}
    meter.sample()
    meter._added = {}
    meter.sample()
    assert meter.read() == {"cpu": (5.0, "measured")}


def test_estimate_makes_the_quality_modeled_and_not_better(meter):
    meter._mark_estimated("cpu")
    meter._added = {"cpu": 1.0}
    meter.sample()
    assert meter.read() == {"cpu": (1.0, "modelled")}
    meter._quality["cpu"] = "unavailable"
    meter._mark_estimated("cpu")
    assert meter._quality == {"cpu": "unavailable"}


def test_close_takes_a_last_sample_and_releases_sensor_and_thread(meter):
    assert len(threads()) == 1
    meter._added = {"cpu": 7.0}
    meter.close()
    meter.close()
    meter.sample()
    meter.start()
    assert meter.read() == {"cpu": (7.0, "measured")}
    assert (meter._opened, meter._released) == (1, 1)
    assert threads() == []


def test_meter_that_was_closed_before_its_start_opens_nothing():
    meter = SensorMeter()
    meter.close()
    meter.start()
    assert (meter.read(), meter._opened) == ({}, 0)


def test_unavailable_sensor_is_not_sampled():
    meter = SensorMeter("unavailable")
    meter.start()
    assert threads() == []
    meter.sample()
    meter.close()
    assert meter.read() == {"cpu": (0.0, "unavailable")}
    assert meter._released == 0


def test_description_has_the_quality_of_each_component(meter):
    assert SensorMeter().describe() == "sensor (not started)"
    assert meter.describe() == "sensor (cpu measured)"


def test_copy_for_another_process_starts_from_zero(meter):
    meter._added = {"cpu": 7.0}
    meter.sample()
    copy = pickle.loads(pickle.dumps(meter))
    assert (copy.read(), copy.problem, copy.every) == ({}, None, timedelta(minutes=1))


@pytest.mark.parametrize("every", ["0s", "0.09s", timedelta(milliseconds=99)])
def test_interval_below_a_tenth_of_a_second_raises(every):
    with pytest.raises(ValueError, match=r"`every` should be 0\.1 s or more, got"):
        SensorMeter(every=every)
