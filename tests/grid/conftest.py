"""The fake services, for all tests of signals."""

import pytest

from tests.helpers.live_signals import build, grid, service_environment

__all__ = ["build", "grid", "service_environment"]


@pytest.fixture(autouse=True)
def _use_service_environment(service_environment):
    pass
