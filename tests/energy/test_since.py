"""The energy of one fit from a shared meter, on a simulated clock."""

import pytest

from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.since import MeterSince
from lightning_green.utilities.clock import SimulatedClock

WATTS, HOUR = 100.0, 3600.0


@pytest.fixture
def clock():
    return SimulatedClock("2024-05-01T00:00:00Z")


@pytest.fixture
def shared(clock):
    """Return a meter that has run for an hour at a tenth of its power."""
    meter = ConstantPowerMeter(WATTS)
    meter.bind_clock(clock.monotonic)
    meter.start()
    meter.set_load(0.1)
    clock.sleep(HOUR)
    return meter


def joules(meter):
    return meter.read()["other"].joules


def test_energy_counts_from_the_start_of_the_fit_at_full_power(clock, shared):
    fit = MeterSince(shared)
    fit.start()
    assert joules(fit) == 0.0
    clock.sleep(HOUR)
    assert fit.read() == {"other": (pytest.approx(WATTS * HOUR), "modelled")}
    assert joules(shared) == pytest.approx(1.1 * WATTS * HOUR)


def test_after_the_end_the_energy_is_fixed_and_the_shared_meter_runs_on(clock, shared):
    fit = MeterSince(shared)
    fit.start()
    clock.sleep(HOUR)
    assert fit.end() is shared
    fit.set_load(0.0)
    fit.sample()
    clock.sleep(HOUR)
    assert joules(fit) == pytest.approx(WATTS * HOUR)
    assert joules(shared) == pytest.approx(2.1 * WATTS * HOUR)


def test_second_start_has_no_effect(clock, shared):
    fit = MeterSince(shared)
    fit.start()
    fit.set_load(0.5)
    clock.sleep(HOUR)
    fit.start()
    clock.sleep(2 * HOUR)
    assert joules(fit) == pytest.approx(0.5 * WATTS * 3 * HOUR)


def test_next_fit_starts_from_zero(clock, shared):
    for _ in range(2):
        fit = MeterSince(shared)
        fit.start()
        clock.sleep(HOUR)
        assert joules(fit) == pytest.approx(WATTS * HOUR)
        fit.end()


def test_component_that_appears_later_counts_from_zero(clock, shared):
    fit = MeterSince(shared)
    fit.start()
    shared.watts["gpu"] = 50.0
    assert fit.read()["gpu"].joules == pytest.approx(joules(shared) / 2)


def test_load_reaches_the_shared_meter(clock, shared):
    fit = MeterSince(shared)
    fit.start()
    fit.set_load(0.5)
    clock.sleep(HOUR)
    assert joules(fit) == pytest.approx(0.5 * WATTS * HOUR)


def test_name_problem_and_description_are_those_of_the_shared_meter(shared):
    fit = MeterSince(shared)
    shared.problem = "The sensor is gone."
    assert (fit.name, fit.problem, fit.describe()) == (shared.name, shared.problem, shared.describe())


def test_close_closes_the_shared_meter(clock, shared):
    fit = MeterSince(shared)
    fit.start()
    fit.close()
    clock.sleep(HOUR)
    assert joules(shared) == pytest.approx(0.1 * WATTS * HOUR)
