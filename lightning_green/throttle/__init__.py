"""Lower power while training: the actuators, the profile of their levels, and the controller that selects one."""

from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.restore import restore_left_over
from lightning_green.throttle.settings import Setting

__all__ = ["Actuator", "Setting", "ThrottleError", "restore_left_over"]
