"""Automatic selection of an actuator."""

import logging

import pytest

from lightning_green.planning import Level
from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit
from lightning_green.throttle.actuators.nvml_power_profile import NvmlPowerProfile
from lightning_green.throttle.registry import ACTUATORS
from lightning_green.throttle.selection import select_actuator
from tests.helpers.fake_nvml import FakeDriver


@pytest.fixture(autouse=True)
def _no_zeusd(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "none.sock"))


def test_first_usable_actuator_of_the_gpus_is_selected(driver):
    assert type(select_actuator(True, None)) is NvmlPowerLimit


def test_actuator_that_cannot_change_the_device_is_skipped_without_a_warning(driver, caplog):
    for card in driver.cards:
        card.root = False
    with caplog.at_level(logging.WARNING):
        assert select_actuator(True, None) is None
    assert caplog.records == []


def test_actuator_of_another_type_of_device_is_not_selected(driver, monkeypatch):
    monkeypatch.setattr(NvmlPowerLimit, "auto_device", "cpu")
    assert type(select_actuator(True, None)) is NvmlLockedClocks


def test_power_profile_is_selected_if_neither_power_limit_nor_clocks_can_be_set(driver):
    for card in driver.cards:
        card.limits, card.profiles = (600_000, 600_000), {1: (1, [])}  # the driver refuses to write the limits
    assert type(select_actuator(True, None)) is NvmlPowerProfile
    assert select_actuator(True, None, [Level(0.8, 0.9)]) is None  # a profile is not a fraction of power or speed


def test_nothing_is_selected_without_a_device(monkeypatch):
    FakeDriver([]).install(monkeypatch)
    assert select_actuator(True, None) is None


def test_gpus_of_the_job_are_bound(driver):
    assert select_actuator(True, ["GPU-bb"]).gpu_ids == ["GPU-bb"]


def test_stated_levels_are_the_settings_that_are_offered(driver):
    actuator = select_actuator(True, ["GPU-bb"], [Level(0.8, 0.9), Level(0.6, 0.7)])
    assert [setting.value for setting in actuator.levels()] == [650.0, 520.0, 390.0]


def test_actuator_without_a_scale_is_skipped_for_stated_levels(driver, monkeypatch):
    monkeypatch.setattr(NvmlPowerLimit, "scale", None)
    assert type(select_actuator(True, None)) is NvmlPowerLimit
    assert type(select_actuator(True, None, [Level(0.8, 0.9)])) is NvmlLockedClocks


def test_actuator_that_cannot_be_loaded_is_skipped_with_a_warning(driver, monkeypatch, caplog):
    def load(name):
        if name == next(iter(ACTUATORS)):
            raise ImportError("no module named rack")
        return NvmlPowerLimit

    monkeypatch.setattr("lightning_green.throttle.selection.actuator_class", load)
    assert type(select_actuator(True, None)) is NvmlPowerLimit
    assert "is skipped, because it cannot be loaded: no module named rack" in caplog.text
