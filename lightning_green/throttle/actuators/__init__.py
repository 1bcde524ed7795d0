"""Devices whose power can be lowered, one file each."""

from lightning_green.throttle.actuators.cpu_governor import CpuGovernor
from lightning_green.throttle.actuators.nvml_locked_clocks import NvmlLockedClocks
from lightning_green.throttle.actuators.nvml_power_limit import NvmlPowerLimit
from lightning_green.throttle.actuators.nvml_power_profile import NvmlPowerProfile
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.actuators.zeusd_locked_clocks import ZeusdLockedClocks
from lightning_green.throttle.actuators.zeusd_power_limit import ZeusdPowerLimit

__all__ = [
    "CpuGovernor",
    "NvmlLockedClocks",
    "NvmlPowerLimit",
    "NvmlPowerProfile",
    "RaplPowerLimit",
    "ZeusdLockedClocks",
    "ZeusdPowerLimit",
]
