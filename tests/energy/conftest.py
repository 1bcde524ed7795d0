"""Fake devices and services for the tests of meters."""

import pytest

from tests.helpers.fake_nvml import Card, FakeDriver
from tests.helpers.json_server import json_server


@pytest.fixture
def driver(monkeypatch):
    """Install a fake NVML with three GPUs, all of which belong to the job."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return FakeDriver([Card("GPU-aa11"), Card("GPU-ab22"), Card("GPU-cc33")]).install(monkeypatch)


@pytest.fixture
def server(monkeypatch):
    """Start a local JSON server, used without a proxy and without a token."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "LIGHTNING_GREEN_METER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with json_server() as server:
        yield server
