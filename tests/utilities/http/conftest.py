"""The fake services, which are also servers for tests of the transport."""

from tests.helpers.live_signals import grid, service_environment

__all__ = ["grid", "service_environment"]
