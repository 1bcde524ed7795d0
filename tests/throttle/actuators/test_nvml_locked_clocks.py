"""Locked clocks through a fake driver library behind the real nvidia-ml-py."""

from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
from tests.helpers.fake_nvml import Card, FakeDriver


def test_locks_supported_clocks_and_restores_previous_lock(driver, tmp_path):
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


def test_named_gpus_take_precedence_over_gpus_of_job(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver = FakeDriver([Card("GPU-aa"), Card("GPU-bb"), Card("GPU-cc")]).install(monkeypatch)
    clocks = NvmlLockedClocks([1200], gpu_ids=[2])
    clocks.bind_gpus(["0", "1"])
    clocks.set(clocks.levels()[1])
    assert [card.locked for card in driver.cards] == [None, None, (0, 1200)]
    clocks.restore()
