import pytest

from lightning_green.throttle.actuators.nvml_cards import open_cards
from lightning_green.throttle.errors import ThrottleError
from tests.helpers.fake_nvml import LOST, Card, FakeDriver


def test_gpus_of_the_job_are_open_inside_the_block_only(driver):
    with open_cards(["1"]) as (_, gpus):
        assert [gpu.index for gpu in gpus] == [1]
        assert driver.open == 1
    assert driver.open == 0


def test_errors_of_the_driver_are_those_of_an_actuator(driver):
    with pytest.raises(ThrottleError, match=r"run as root .*zeusd"), open_cards(None) as (nvml, _):
        raise nvml.NVMLError_NoPermission
    with pytest.raises(ThrottleError), open_cards(None) as (nvml, _):
        raise nvml.NVMLError(LOST)
    assert driver.open == 0


def test_without_a_driver():
    with pytest.raises(ThrottleError, match="there is no NVIDIA driver"), open_cards(None):
        pytest.fail("the block should not run")


def test_without_a_gpu(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ThrottleError), open_cards(None):
        pytest.fail("the block should not run")


def test_slice_of_a_gpu_is_refused(monkeypatch):
    FakeDriver([Card("GPU-aa", mig=[("MIG-1", 1, 0, 3)])]).install(monkeypatch)
    with pytest.raises(ThrottleError, match="would slow down its other users"), open_cards(["MIG-1"]):
        pytest.fail("the block should not run")
