"""The power limit through a fake driver library behind the real nvidia-ml-py."""

import json

import pytest

from lightning_green.throttle import Setting
from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit


def test_restores_original_limit_and_not_maximum(driver, tmp_path):
    cap = NvmlPowerLimit()
    cap.bind(tmp_path)
    assert [level.name for level in cap.levels()] == ["500 W", "450 W", "400 W", "350 W", "300 W", "250 W"]
    assert cap.set(cap.levels()[2])
    assert [card.limit for card in driver.cards] == [400_000, 400_000]
    assert cap.set(cap.levels()[3])
    (file,) = tmp_path.glob("throttle.*.json")
    (entry,) = json.loads(file.read_text())["entries"].values()
    assert entry["state"] == {"GPU-aa": 500_000, "GPU-bb": 650_000}
    assert cap.set(cap.levels()[0])
    assert [card.limit for card in driver.cards] == [500_000, 650_000]
    assert not file.exists()
    assert cap.restore()
    assert driver.open == 0


def test_missing_permission_logs_one_warning_with_remedy(driver, caplog):
    for card in driver.cards:
        card.root = False
    for actuator in (NvmlPowerLimit(), NvmlLockedClocks()):
        caplog.clear()
        assert actuator.levels() == ()
        assert actuator.levels() == ()
        (record,) = caplog.records
        assert "run as root" in record.getMessage()
        assert "zeusd" in record.getMessage()
        with pytest.raises(ValueError, match="should be one of none"):
            actuator.set(Setting("250 W", 250.0))
    assert [card.limit for card in driver.cards] == [500_000, 650_000]


def test_sets_gpus_of_job_and_no_shared_gpu(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    cap = NvmlPowerLimit([300, 100, 900])
    assert [level.name for level in cap.levels()] == ["650 W", "300 W"]  # the GPU accepts neither 100 nor 900
    cap.set(cap.levels()[1])
    assert [card.limit for card in driver.cards] == [500_000, 300_000]
    cap.restore()
    driver.cards[1].mig = [("MIG-1", 1, 0, 3)]
    assert NvmlPowerLimit().levels() == ()


def test_refused_setting_restores_original_limit(driver):
    cap = NvmlPowerLimit()
    level = cap.levels()[1]
    driver.cards[1].limits = (600_000, 700_000)
    assert not cap.set(level)
    assert [card.limit for card in driver.cards] == [500_000, 650_000]
    assert "could not be set" in cap.problem
