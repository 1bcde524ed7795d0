"""Fake devices for the tests of throttling."""

import pytest

from lightning_green.throttle.actuators import rapl_power_limit
from tests.helpers.fake_nvml import Card, FakeDriver
from tests.helpers.zeusd_server import zeusd_server


@pytest.fixture(autouse=True)
def kernel(tmp_path, monkeypatch):
    """Make this process take the directory ``powercap`` of the test for the kernel's."""
    monkeypatch.setattr(rapl_power_limit, "POWERCAP", tmp_path / "powercap")


@pytest.fixture
def driver(monkeypatch):
    """Install a fake NVML with two GPUs of different power limits."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return FakeDriver([Card("GPU-aa", limit=500_000), Card("GPU-bb", limit=650_000)]).install(monkeypatch)


@pytest.fixture
def zeusd(tmp_path, monkeypatch):
    """Start a local zeusd on a Unix socket, and return its state."""
    monkeypatch.delenv("ZEUSD_TOKEN", raising=False)
    path = str(tmp_path / "z.sock")
    monkeypatch.setenv("ZEUSD_SOCK_PATH", path)
    with zeusd_server(path) as state:
        yield state
