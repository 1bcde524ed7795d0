"""Actuators by name."""

from __future__ import annotations

from lightning_green.throttle.actuator import Actuator
from lightning_green.utilities.registry import Registry

ACTUATORS = Registry(
    "lightning_green.actuators",
    {
        "nvml-power-limit": "lightning_green.throttle.actuators.nvml_power_limit:NvmlPowerLimit",
        "zeusd-power-limit": "lightning_green.throttle.actuators.zeusd_power_limit:ZeusdPowerLimit",
        "nvml-locked-clocks": "lightning_green.throttle.actuators.nvml_locked_clocks:NvmlLockedClocks",
        "zeusd-locked-clocks": "lightning_green.throttle.actuators.zeusd_locked_clocks:ZeusdLockedClocks",
        "nvml-power-profile": "lightning_green.throttle.actuators.nvml_power_profile:NvmlPowerProfile",
        "rapl-power-limit": "lightning_green.throttle.actuators.rapl_power_limit:RaplPowerLimit",
        "cpu-governor": "lightning_green.throttle.actuators.cpu_governor:CpuGovernor",
    },
)
"""Actuators by the name that ``throttle="name"`` uses, in the order in which ``throttle="auto"`` tries them.

Other packages add actuators through the entry point group ``lightning_green.actuators``.
"""


def actuator_class(name: str) -> type[Actuator]:
    """Return the actuator class that is registered as ``name``.

    Raises:
        KeyError: If no actuator has this name.
        TypeError: If the registered object is not a subclass of ``Actuator``.

    """
    return ACTUATORS.load_class(name, Actuator)


def registered_name(kind: str) -> str:
    """Return the registry name of an actuator from its ``Actuator.kind``.

    Examples:
        >>> registered_name("NVML power limit")
        'nvml-power-limit'

    """
    return kind.lower().replace(" ", "-")
