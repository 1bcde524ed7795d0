"""Energy counters and the integral of a power."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_green.energy.counter import EnergyCounter, PowerIntegral


@given(st.lists(st.floats(0.0, 900.0), min_size=2, max_size=60), st.floats(0.0, 999.0))
def test_wrapping_counter_loses_no_energy(steps, start):
    counter, shown, true, found = EnergyCounter(max_watts=950.0, range_joules=1000.0), start, 0.0, 0.0
    counter.add(0.0, start)
    for at, joules in enumerate(steps, 1):
        true, shown = true + joules, (shown + joules) % 1000.0
        added = counter.add(float(at), shown)
        assert not added.estimated
        found += added.joules
    assert found == pytest.approx(true, abs=1e-6)


def test_wraps_in_long_gap_are_estimated_from_previous_power():
    counter = EnergyCounter(max_watts=500.0, range_joules=1000.0)
    counter.add(0.0, 0.0)
    counter.add(1.0, 100.0)
    added = counter.add(36.0, 600.0)  # 35 s at 100 W: 3500 J, three wrap-arounds
    assert added == (3500.0, True)


def test_lower_reading_without_range_is_reset():
    counter = EnergyCounter(max_watts=500.0)
    counter.add(0.0, 5000.0)
    assert counter.add(10.0, 6000.0) == (1000.0, False)
    assert counter.add(20.0, 30.0) == (1000.0, True)
    assert counter.add(30.0, 1030.0) == (1000.0, False)


def test_lower_reading_that_implies_too_much_power_is_reset():
    counter = EnergyCounter(max_watts=500.0, range_joules=1e6)
    counter.add(0.0, 2000.0)
    counter.add(1.0, 2100.0)
    assert counter.add(2.0, 50.0) == (100.0, True)


def test_power_is_integrated_and_long_gap_is_estimated():
    integral = PowerIntegral(longest_gap=5.0)
    assert integral.add(0.0, 100.0) == (0.0, False)
    assert integral.add(2.0, 300.0) == (400.0, False)
    assert integral.add(12.0, 100.0) == (2000.0, True)
