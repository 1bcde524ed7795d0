"""The NVML meter with a fake driver library behind the real nvidia-ml-py."""

import pickle
from types import SimpleNamespace

import pytest

from lightning_green.energy.auto import AutoMeter
from lightning_green.energy.nvml import NvmlMeter
from tests.helpers.fake_nvml import LOST, NOT_SUPPORTED


@pytest.mark.parametrize("visible", ["MIG-7", "MIG-GPU-aa11/2/0", "0", "MIG-7,MIG-8", "GPU-aa11"])
def test_mig_instance_is_unavailable_with_reason(driver, monkeypatch, visible):
    driver.cards[0].mig = [("MIG-7", 1, 0, 3), ("MIG-8", 2, 0, 2)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = NvmlMeter(every="60s")
    meter.start()
    driver.cards[0].millijoules += 700
    meter.sample()
    assert meter.read()["gpu"] == (0.0, "unavailable")
    assert "GPU 0 cannot be read (a MIG instance: a part of a GPU has no energy counter of its own)" in meter.problem
    meter.close()


def test_virtual_gpu_without_counter_and_power_is_unavailable_in_auto(driver, tmp_path):
    driver.cards[1:] = []
    driver.cards[0].has_counter, driver.cards[0].fault = False, NOT_SUPPORTED
    meter = AutoMeter(every="60s", powercap=tmp_path)
    meter.start()
    assert meter.read()["gpu"] == (0.0, "unavailable")
    assert "The energy of GPU 0 cannot be read" in meter.problem
    meter.close()


@pytest.mark.parametrize("milliwatts", [0, 65_535_000])
def test_power_that_no_gpu_draws_is_unavailable(driver, milliwatts):
    driver.cards[1:] = []
    driver.cards[0].has_counter = False
    meter = NvmlMeter(every="60s")
    meter.start()
    driver.cards[0].milliwatts = milliwatts
    meter.sample()
    assert meter.read()["gpu"].quality == "unavailable"
    meter.close()


def test_jump_of_the_counter_is_unavailable_and_not_counted(driver):
    driver.cards[1:] = []
    meter = NvmlMeter(every="60s")
    meter.start()
    before, driver.cards[0].millijoules = driver.cards[0].millijoules, 3 * 10**15
    meter.sample()
    assert meter.read()["gpu"] == (0.0, "unavailable")
    driver.cards[0].millijoules = before + 5000
    meter.sample()
    assert meter.read()["gpu"] == (5.0, "measured")
    meter.close()


def test_counts_gpus_of_job_and_bridges_outage(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ab22,0")
    meter = NvmlMeter(every="60s")
    meter.start()
    assert meter.read()["gpu"] == (0.0, "measured")
    for card, joules in zip(driver.cards, (10, 20, 40), strict=True):
        card.millijoules += joules * 1000
    meter.sample()
    assert meter.read()["gpu"].joules == 30.0
    driver.cards[0].fault = LOST
    for card in driver.cards:
        card.millijoules += 1000
    meter.sample()
    assert meter.read()["gpu"].joules == 31.0
    assert "GPU 0 cannot be read for now" in meter.problem
    driver.cards[0].fault = 0
    meter.close()  # the GPU kept counting during the outage
    assert meter.read()["gpu"] == (32.0, "measured")
    assert driver.open == 0
    assert meter.describe() == "NVML (measured)"


def test_power_of_gpu_without_counter_is_integrated(driver, monkeypatch):
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr("lightning_green.energy.nvml.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    driver.cards[1:] = []
    driver.cards[0].has_counter = False
    meter = NvmlMeter(every="60s")
    meter.start()
    driver.cards[0].milliwatts = 100_000
    meter.sample()
    meter.close()
    assert meter.read()["gpu"] == (10 * 200.0 + 10 * 100.0, "measured")


def test_driver_reload_does_not_jump_and_is_reported(driver):
    driver.cards[1:] = []
    meter = NvmlMeter(every="60s")
    meter.start()
    driver.cards[0].millijoules = 5
    meter.sample()
    assert meter.read()["gpu"].quality == "modelled"
    assert meter.read()["gpu"].joules < 1.0
    meter.close()
    assert "reset" in meter.problem


def test_missing_driver_is_unavailable_with_reason():
    meter = NvmlMeter()
    meter.start()
    assert meter.read() == {"gpu": (0.0, "unavailable")}
    assert "NVML error" in meter.problem
    meter.sample()
    meter.close()


def test_pickled_copy_starts_from_zero(driver):
    meter = NvmlMeter(every="60s")
    meter.start()
    copy = pickle.loads(pickle.dumps(meter))
    assert copy.read() == {}
    assert copy.every == meter.every
    meter.close()
