"""Only the cards that the Trainer was given are throttled, also where CUDA_VISIBLE_DEVICES names more or none."""

import pytest

from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit
from lightning_green.throttle.controller import ThrottleControl
from tests.energy.fake_nvml import Card, FakeDriver


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = [Card("GPU-aa", limit=500_000), Card("GPU-bb", limit=500_000), Card("GPU-cc", limit=500_000)]
    return FakeDriver(cards).install(monkeypatch)


@pytest.mark.parametrize("throttle", ["auto", "0.6:0.8", "ours"])
@pytest.mark.parametrize("gpus", [["1"], ["GPU-bb"]])
def test_the_other_cards_stay_as_they_are(driver, tmp_path, monkeypatch, throttle, gpus):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path))
    control = ThrottleControl([NvmlPowerLimit([300]), "0.6:0.8"] if throttle == "ours" else throttle)
    control.start(tmp_path, None, "model", on_gpu=True, gpus=gpus)
    control._go_to("0.6:0.8" if control.stated else "300 W")
    assert [card.limit for card in driver.cards] == [500_000, 300_000, 500_000]
    control.restore()
    assert [card.limit for card in driver.cards] == [500_000] * 3


def test_what_the_user_names_stays(driver):
    clocks = NvmlLockedClocks([1200], gpu_ids=[2])
    clocks.bind_gpus(["0", "1"])
    clocks.set(clocks.levels()[1])
    assert [card.locked for card in driver.cards] == [None, None, (0, 1200)]
    clocks.restore()
