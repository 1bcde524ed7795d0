"""The profile with simulated devices."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.throttle.profile import ThrottleProfile, least_energy


class Device:
    """A device with a noisy power and step time at each level."""

    def __init__(self, curve, noise=0.01, seed=0):
        self.curve, self.noise, self.random = curve, noise, random.Random(seed)
        self.level, self.energy, self.seconds = next(iter(curve)), 0.0, 0.0

    def step(self):
        watts, seconds = self.curve[self.level]
        took = seconds * (1 + self.random.gauss(0, self.noise))
        self.energy += watts * (1 + self.random.gauss(0, self.noise)) * took
        self.seconds += took
        return took

    def run(self, profile, steps, joules=None):
        for _ in range(steps):
            wanted = profile.on_step(self.step(), joules or (lambda: self.energy))
            if wanted is not None:
                self.level = wanted


CURVE = {"full": (300.0, 0.2), "250 W": (234.0, 0.2 / 0.9), "200 W": (180.0, 0.2 / 0.7)}


def test_levels_are_measured_within_budget_and_precision():
    device = Device(CURVE)
    profile = ThrottleProfile(list(CURVE), run_seconds=36_000)
    device.run(profile, 2000)
    assert profile.measuring is None
    assert device.level == "full"
    assert profile.spent <= 0.02 * 36_000
    levels = profile.levels()
    assert levels["250 W"].power == pytest.approx(0.78, rel=0.03)
    assert levels["250 W"].speed == pytest.approx(0.90, rel=0.03)
    assert levels["200 W"].power == pytest.approx(0.60, rel=0.03)
    for point in profile.points.values():
        assert point.seconds_error <= 0.03 * point.seconds
        assert point.watts_error <= 0.03 * point.watts
    assert least_energy(levels, 1.15) == "250 W"


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 5000.0), st.floats(0.01, 5.0), st.floats(0.0, 0.5), st.integers(0, 1000))
def test_measurements_stay_within_budget(run_seconds, step, noise, seed):
    device = Device({name: (watts, seconds * step * 5) for name, (watts, seconds) in CURVE.items()}, noise, seed)
    profile = ThrottleProfile(list(CURVE), run_seconds)
    longest = 0.0
    for _ in range(int(run_seconds / step) + 10):
        took = device.step()
        longest = max(longest, took)
        device.level = profile.on_step(took, lambda: device.energy) or device.level
    # A step that is slower than the previous one may exceed the budget of its level.
    assert profile.spent <= 0.02 * run_seconds + len(CURVE) * longest


def test_noisy_level_is_not_offered():
    device = Device(CURVE, noise=0.8)
    profile = ThrottleProfile(list(CURVE), run_seconds=3000)
    device.run(profile, 3000)
    assert profile.measuring is None
    assert list(profile.levels()) == ["full"]


def test_dominated_level_is_not_offered():
    curve = {"full": (300.0, 0.2), "slow": (290.0, 0.4), "good": (200.0, 0.25)}
    device = Device(curve)
    profile = ThrottleProfile(list(curve), run_seconds=36_000)
    device.run(profile, 3000)
    assert len(profile.points) == 3
    assert list(profile.levels()) == ["full", "good"]


def test_no_level_is_offered_without_measured_power():
    device = Device(CURVE)
    profile = ThrottleProfile(list(CURVE), run_seconds=36_000)
    device.run(profile, 3000, joules=lambda: None)
    assert profile.points["250 W"].watts is None
    assert list(profile.levels()) == ["full"]


def test_drift_starts_new_measurement_within_budget():
    device = Device(CURVE)
    profile = ThrottleProfile(list(CURVE), run_seconds=36_000)
    device.run(profile, 2000)
    first, spent = dict(profile.points), profile.spent
    device.curve = {"full": (300.0, 0.4), "250 W": (234.0, 0.8), "200 W": (180.0, 1.6)}
    device.run(profile, 3000)
    assert profile.spent > spent
    assert profile.points["full"].seconds == pytest.approx(0.4, rel=0.03)
    assert first["full"].seconds == pytest.approx(0.2, rel=0.03)
    assert profile.levels()["250 W"].speed == pytest.approx(0.5, rel=0.05)
    assert profile.spent <= profile.budget


def test_single_slow_step_is_no_drift():
    device = Device(CURVE)
    profile = ThrottleProfile(list(CURVE), run_seconds=36_000)
    device.run(profile, 2000)
    for took in [5.0, 0.2, 0.2, 5.0, 0.2, 0.2] * 5:
        assert profile.on_step(took, lambda: device.energy) is None


@pytest.mark.parametrize("discarded", [True, False])
def test_energy_between_steps_belongs_to_no_level(discarded):
    device = Device(CURVE)
    profile = ThrottleProfile(list(CURVE), run_seconds=36_000)
    for step in range(4000):
        if step % 20 == 0:  # a validation
            device.energy += 900.0
            if discarded:
                profile.discard_block()
        device.run(profile, 1)
    levels = profile.levels()
    if discarded:
        assert profile.points["full"].watts == pytest.approx(300.0, rel=0.03)
        assert (levels["250 W"].power, levels["250 W"].speed) == pytest.approx((0.78, 0.9), rel=0.03)
    else:  # checks that this test can fail
        assert "250 W" not in levels or profile.points["full"].watts > 330.0
