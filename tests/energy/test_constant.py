"""A constant power on different clocks."""

import pickle
import threading

import pytest

from lightning_green.energy.constant import ConstantPowerMeter


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_energy_is_power_times_time_of_bound_clock():
    clock = Clock()
    meter = ConstantPowerMeter({"gpu": 300.0, "cpu": 80.0})
    meter.bind_clock(clock)
    clock.now += 50  # before the start nothing is counted
    meter.start()
    clock.now += 3600
    meter.start()  # a second call has no effect
    assert meter.read()["gpu"] == (pytest.approx(300.0 * 3600), "modelled")
    meter.set_load(0.2)
    clock.now += 3600
    assert meter.read()["cpu"].joules == pytest.approx(80.0 * 3600 * 1.2)
    meter.set_load(0.0)
    clock.now += 3600
    meter.close()
    clock.now += 3600
    assert meter.read()["cpu"].joules == pytest.approx(80.0 * 3600 * 1.2)


def test_changing_clock_keeps_energy():
    first, second = Clock(), Clock()
    second.now = 5.0
    meter = ConstantPowerMeter(10.0)
    meter.bind_clock(first)
    meter.start()
    first.now += 10
    meter.bind_clock(second)
    second.now += 10
    assert meter.read()["other"].joules == pytest.approx(200.0)
    second.now -= 100  # a clock that jumps back does not lower the energy
    assert meter.read()["other"].joules == pytest.approx(200.0)


def test_energy_never_decreases_in_concurrent_reads():
    meter = ConstantPowerMeter(1e6)
    meter.start()
    decreases = []

    def read():
        last = 0.0
        for _ in range(500):
            now = meter.read()["other"].joules
            if now < last:
                decreases.append((last, now))
            last = now

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decreases == []


def test_pickled_copy_starts_from_zero():
    meter = ConstantPowerMeter(10.0)
    meter.start()
    copy = pickle.loads(pickle.dumps(meter))
    assert copy.read()["other"].joules == 0.0
    copy.start()


@pytest.mark.parametrize(
    ("watts", "error"),
    [(-1.0, ValueError), (float("nan"), ValueError), ("300", TypeError), (True, TypeError), ({}, ValueError)],
)
def test_invalid_power_raises(watts, error):
    with pytest.raises(error, match="`watts` should"):
        ConstantPowerMeter(watts)


def test_invalid_component_and_load_raise():
    with pytest.raises(ValueError, match="components cpu, gpu, ram, other, got 'tpu'"):
        ConstantPowerMeter({"tpu": 3.0})
    with pytest.raises(ValueError, match="`fraction` should be"):
        ConstantPowerMeter(3.0).set_load(-0.1)
