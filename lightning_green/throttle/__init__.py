"""Less power while running: the actuators, what each level costs in speed, and which one is worth it."""

from lightning_green.throttle.actuator import Actuator, Setting
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.journal import restore_left_over

__all__ = ["Actuator", "Setting", "ThrottleError", "restore_left_over"]
