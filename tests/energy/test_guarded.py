"""Meters that raise, hang or return something else than energy, behind their guard."""

import logging
import threading
import time

import numpy as np
import pytest

from lightning_green.energy import guarded
from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.guarded import GuardedMeter, guard
from lightning_green.energy.meter import Energy, Meter
from lightning_green.energy.none import NoMeter

WAIT = 20.0  # seconds, far longer than needed


class Scripted(Meter):
    """Returns ``value``, raises it if it is an exception, or waits for it if it is an event."""

    name = "scripted"

    def __init__(self, value=1.0, start=None):
        self.value, self.at_start, self.threads = value, start, set()

    def start(self):
        self.threads.add(threading.current_thread())
        self._do(self.at_start)

    def read(self):
        self.threads.add(threading.current_thread())
        return {"other": Energy(self._do(self.value), "measured")}

    def close(self):
        pass

    @staticmethod
    def _do(value):
        if isinstance(value, Exception):
            raise value
        if isinstance(value, threading.Event):
            value.wait(WAIT)
            return 7.0
        return value


def started(inner):
    meter = GuardedMeter(inner)
    meter.start()
    return meter


def energy_after(meter, value):
    meter._meter.value = value
    meter.sample(WAIT)
    return meter.read()["other"]


def test_constant_power_is_not_guarded_and_its_subclasses_are():
    class Own(ConstantPowerMeter):
        pass

    for meter in (ConstantPowerMeter(5.0), NoMeter()):
        assert guard(meter) is meter
    assert isinstance(guard(Own(5.0)), GuardedMeter)


def test_the_thread_of_the_training_calls_nothing():
    inner = Scripted()
    meter = started(inner)
    meter.sample(WAIT)
    meter.close()
    assert threading.current_thread() not in inner.threads
    assert meter.read() == {"other": (1.0, "measured")}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "not finite: nan"),
        (float("inf"), "not finite: inf"),
        (-1.0, "negative energy: -1 J"),
        (3.0, "falling energy: 3 J after 10 J"),
        (None, "no energy"),
        (OSError("the sensor is gone"), "raised OSError: the sensor is gone"),
    ],
    ids=str,
)
def test_energy_is_unavailable_for_as_long_as_the_meter_fails(value, reason):
    meter = started(Scripted(10.0))
    assert energy_after(meter, value) == (10.0, "unavailable")
    assert energy_after(meter, value) == (10.0, "unavailable")
    assert reason in meter.problem
    assert len(meter.problem.splitlines()) == 1
    assert energy_after(meter, 25.0) == (25.0, "measured")
    meter.close()


def test_numbers_of_other_types_become_floats():
    meter = started(Scripted(np.float32(2.5)))
    assert type(energy_after(meter, np.float32(3.5)).joules) is float
    meter.close()


def test_start_that_raises_is_unavailable_and_tried_again_with_the_next_fit():
    inner = Scripted(start=OSError("no such device"))
    meter = started(inner)
    assert meter.read() == {"other": (0.0, "unavailable")}
    assert "raised OSError: no such device in `start`" in meter.problem
    assert meter.describe() == "scripted unavailable (OSError: no such device)"
    inner.at_start = None
    meter.wake()
    meter.sample(WAIT)
    assert meter.read() == {"other": (1.0, "measured")}
    meter.close()


def test_training_does_not_wait_for_a_start_that_hangs(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(guarded, "START_SECONDS", 0.05)
    gate = threading.Event()
    meter = started(Scripted(start=gate))
    assert (meter.read(), meter.describe()) == ({}, "scripted (starting)")
    assert "is still starting" in caplog.text
    gate.set()
    meter.sample(WAIT)
    assert meter.read() == {"other": (1.0, "measured")}
    assert "The meter has started" in caplog.text
    meter.close()


def test_read_that_hangs_is_unavailable_until_it_returns(monkeypatch):
    monkeypatch.setattr(guarded, "_HANG_SECONDS", 0.01)
    meter = started(Scripted(1.0))
    meter.sample(WAIT)
    gate = meter._meter.value = threading.Event()
    meter.sample()
    time.sleep(0.02)
    assert meter.read() == {"other": (1.0, "unavailable")}
    assert "does not respond" in meter.problem
    gate.set()
    meter._meter.value = 7.0
    meter.sample(WAIT)
    assert meter.read() == {"other": (7.0, "measured")}
    meter.close()


def test_at_rest_and_after_close_there_is_no_thread():
    meter = started(Scripted())
    for stop in (meter.rest, meter.close):
        stop()
        for thread in [one for one in threading.enumerate() if one.name == "lightning-green meter"]:
            thread.join(WAIT)
            assert not thread.is_alive()
