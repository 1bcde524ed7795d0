"""The profile against simulated devices, and the control against a tree."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.energy.meter import Energy, Meter
from lightning_green.planning.job import Level
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.actuators.thread_count import ThreadCount
from lightning_green.throttle.controller import ThrottleControl
from lightning_green.throttle.profile import ThrottleProfile, half_width, least_energy
from tests.throttle.trees import limits, packages


class Device:
    """A device with a power and a time of a step at each level, with noise."""

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


def test_levels_are_measured_within_their_share_and_to_their_confidence():
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
def test_measuring_never_takes_more_than_its_share_but_for_the_first_step(run_seconds, step, noise, seed):
    device = Device({name: (watts, seconds * step * 5) for name, (watts, seconds) in CURVE.items()}, noise, seed)
    profile = ThrottleProfile(list(CURVE), run_seconds)
    longest = 0.0
    for _ in range(int(run_seconds / step) + 10):
        took = device.step()
        longest = max(longest, took)
        device.level = profile.on_step(took, lambda: device.energy) or device.level
    # a step that is slower than the one before it may pass the end
    assert profile.spent <= 0.02 * run_seconds + len(CURVE) * longest


def test_a_level_that_is_too_noisy_is_not_offered():
    device = Device(CURVE, noise=0.8)
    profile = ThrottleProfile(list(CURVE), run_seconds=3000)
    device.run(profile, 3000)
    assert profile.measuring is None
    assert list(profile.levels()) == ["full"]


def test_a_dominated_level_is_dropped():
    curve = {"full": (300.0, 0.2), "slow": (290.0, 0.4), "good": (200.0, 0.25)}
    device = Device(curve)
    profile = ThrottleProfile(list(curve), run_seconds=36_000)
    device.run(profile, 3000)
    assert len(profile.points) == 3
    assert list(profile.levels()) == ["full", "good"]


def test_without_a_sensor_no_level_is_offered():
    device = Device(CURVE)
    profile = ThrottleProfile(list(CURVE), run_seconds=36_000)
    device.run(profile, 3000, joules=lambda: None)
    assert profile.points["250 W"].watts is None
    assert list(profile.levels()) == ["full"]


def test_a_step_time_that_drifts_is_measured_again_within_the_same_share():
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


def test_one_slow_step_is_no_drift():
    device = Device(CURVE)
    profile = ThrottleProfile(list(CURVE), run_seconds=36_000)
    device.run(profile, 2000)
    for took in [5.0, 0.2, 0.2, 5.0, 0.2, 0.2] * 5:
        assert profile.on_step(took, lambda: device.energy) is None


@pytest.mark.parametrize("told", [True, False])
def test_what_is_drawn_between_the_steps_belongs_to_no_level(told):
    device = Device(CURVE)
    profile = ThrottleProfile(list(CURVE), run_seconds=36_000)
    for step in range(4000):
        if step % 20 == 0:  # a validation
            device.energy += 900.0
            if told:
                profile.disturbed()
        device.run(profile, 1)
    levels = profile.levels()
    if told:
        assert profile.points["full"].watts == pytest.approx(300.0, rel=0.03)
        assert (levels["250 W"].power, levels["250 W"].speed) == pytest.approx((0.78, 0.9), rel=0.03)
    else:  # the test would not see it otherwise
        assert "250 W" not in levels or profile.points["full"].watts > 330.0


def test_a_quantile_of_student():
    values = [9.0, 10.0, 11.0, 10.0, 10.0]  # t(0.975, 4) = 2.7764
    assert half_width(values, 0.95) == pytest.approx(2.7764 * 0.5**0.5 / 5**0.5, rel=1e-3)
    assert half_width([1.0], 0.95) == float("inf")


class Counting(Meter):
    name = "counting"

    def __init__(self, quality="measured"):
        self.joules, self.quality = 0.0, quality

    def start(self):
        pass

    def read(self):
        return {"cpu": Energy(self.joules, self.quality)}

    def close(self):
        pass


def drive(control, meter, folder, steps):
    for _ in range(steps):
        watts = limits(folder)[1]
        seconds = 0.1 if watts == 150.0 else 0.11
        meter.joules += seconds * watts
        control.on_step(seconds)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))


def test_control_measures_chooses_restores_and_remembers(tmp_path):
    folder, meter = packages(tmp_path / "powercap"), Counting()
    control = ThrottleControl(RaplPowerLimit([100], powercap=folder), max_slowdown=1.2)
    control.start(tmp_path, meter, "model", on_gpu=False)
    control.plan_for(36_000)
    assert control.measuring
    drive(control, meter, folder, 3000)
    assert not control.measuring
    full, low = control.levels()
    assert (low.power, low.speed) == (pytest.approx(100 / 150), pytest.approx(0.1 / 0.11))
    assert control.choose() == low
    assert limits(folder) == [100.0, 100.0]
    assert control.choose(full) == full
    assert limits(folder) == [200.0, 150.0]
    control.choose(low)
    control.restore()
    assert limits(folder) == [200.0, 150.0]

    again = ThrottleControl(RaplPowerLimit([100], powercap=folder), max_slowdown=1.05)
    again.start(tmp_path, meter, "model", on_gpu=False)
    again.plan_for(36_000)
    assert not again.measuring
    assert again.levels() == (Level(1.0, 1.0),)  # a tenth slower is more than allowed
    assert again.choose() == Level(1.0, 1.0)
    other = ThrottleControl(RaplPowerLimit([100], powercap=folder))
    other.start(tmp_path, meter, "another model", on_gpu=False)
    other.plan_for(36_000)
    assert other.measuring


def test_modelled_power_gives_no_level(tmp_path):
    folder, meter = packages(tmp_path / "powercap"), Counting("modelled")
    control = ThrottleControl([RaplPowerLimit([100], powercap=folder)])
    control.start(tmp_path, meter, "model", on_gpu=False)
    control.plan_for(36_000)
    drive(control, meter, folder, 3000)
    assert control.levels() == (Level(1.0, 1.0),)
    assert "could not be measured" in control.why_not
    assert limits(folder) == [200.0, 150.0]


@pytest.mark.parametrize("throttle", [[], [3], 5.0])
def test_wrong_throttles(throttle):
    with pytest.raises(TypeError):
        ThrottleControl(throttle)


@pytest.mark.parametrize("slowdown", [0.9, True, "2", float("nan")])
def test_wrong_slowdowns(slowdown):
    with pytest.raises(ValueError, match="`max_slowdown` should"):
        ThrottleControl(ThreadCount(), slowdown)
