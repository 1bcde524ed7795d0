"""The NVML actuators against a driver library of our own, behind the real nvidia-ml-py."""

import json

import pytest

from lightning_green.throttle import Setting
from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit
from lightning_green.throttle.controller import ThrottleControl
from tests.energy.fake_nvml import Card, FakeDriver


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return FakeDriver([Card("GPU-aa", limit=500_000), Card("GPU-bb", limit=650_000)]).install(monkeypatch)


def test_a_power_limit_goes_back_to_what_was_found_and_not_to_the_maximum(driver, tmp_path):
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


def test_without_permission_there_is_one_warning_with_the_remedy_and_no_level(driver, caplog):
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


def test_only_the_jobs_cards_are_capped_and_no_shared_one(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    cap = NvmlPowerLimit([300, 100, 900])
    assert [level.name for level in cap.levels()] == ["650 W", "300 W"]  # the card takes neither 100 nor 900
    cap.set(cap.levels()[1])
    assert [card.limit for card in driver.cards] == [500_000, 300_000]
    cap.restore()
    driver.cards[1].mig = [("MIG-1", 1, 0, 3)]
    assert NvmlPowerLimit().levels() == ()


def test_locked_clocks_are_supported_ones_and_unlocked_again(driver, tmp_path):
    clocks = NvmlLockedClocks([1400, 1203])
    clocks.bind(tmp_path)
    assert [level.value for level in clocks.levels()] == [1980, 1395, 1200]
    clocks.set(clocks.levels()[1])
    assert {card.locked for card in driver.cards} == {(0, 1395)}
    clocks.restore()
    assert {card.locked for card in driver.cards} == {None}
    site = NvmlLockedClocks(previous=(210, 1500))
    site.set(site.levels()[1])
    site.restore()
    assert {card.locked for card in driver.cards} == {(210, 1500)}


def test_a_card_that_refuses_later_is_brought_back_and_training_goes_on(driver):
    cap = NvmlPowerLimit()
    level = cap.levels()[1]
    driver.cards[1].limits = (600_000, 700_000)
    assert not cap.set(level)
    assert [card.limit for card in driver.cards] == [500_000, 650_000]
    assert "could not be set" in cap.problem


def test_what_was_measured_on_one_model_of_card_is_not_taken_for_another(driver, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))
    names = set()
    for model in ("NVIDIA H100 80GB HBM3", "NVIDIA L40S", "NVIDIA L40S"):
        for card in driver.cards:
            card.model = model
        control = ThrottleControl(NvmlPowerLimit())
        control.start(None, None, "model", on_gpu=True)
        names.add(control._cache.name)
    assert len(names) == 2
