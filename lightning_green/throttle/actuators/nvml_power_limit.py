"""Power limit of NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Scale
from lightning_green.throttle.actuators.nvml_actuator import NvmlActuator
from lightning_green.throttle.actuators.nvml_cards import open_cards
from lightning_green.throttle.settings import Setting, check_positive, power_settings


class NvmlPowerLimit(NvmlActuator):
    """Set the power limit of NVIDIA GPUs. Requires root; in a container, ``SYS_ADMIN``.

    Args:
        watts: Limits to offer per GPU, in W; None for 90 % to 50 % of the original limit in steps of 10 %.
        gpu_ids: NVML indices or UUIDs; None for ``CUDA_VISIBLE_DEVICES``, or all GPUs if it is not set.

    Raises:
        ValueError: If a limit is not above 0.

    Examples:
        ```python
        CarbonScheduler(throttle=NvmlPowerLimit(watts=[300, 250]), max_slowdown=1.15)
        ```

    """

    kind: ClassVar[str] = "NVML power limit"
    scale: ClassVar[Scale] = "power"

    def __init__(self, watts: Sequence[float] | None = None, gpu_ids: Sequence[str | int] | None = None) -> None:
        super().__init__(gpu_ids)
        self.watts = check_positive("watts", watts)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"gpu_ids": self.gpu_ids}

    @override
    def read_state(self) -> dict[str, Any]:
        with open_cards(self.gpu_ids) as (nvml, gpus):
            return {gpu.uuid: nvml.nvmlDeviceGetPowerManagementLimit(gpu.handle) for gpu in gpus}

    @override
    def write_state(self, state: dict[str, Any]) -> None:
        with open_cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                nvml.nvmlDeviceSetPowerManagementLimit(gpu.handle, state[gpu.uuid])

    @override
    def offer_settings(self, state: dict[str, Any]) -> Sequence[Setting]:
        with open_cards(list(state)) as (nvml, gpus):
            lowest = max(nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu.handle)[0] for gpu in gpus) / 1000.0
        return power_settings(min(state.values()) / 1000.0, lowest, self.watts, self.fractions)

    @override
    def apply_setting(self, setting: Setting, state: dict[str, Any]) -> None:
        milliwatts = round(float(setting.value) * 1000.0)
        self.write_state({uuid: min(limit, milliwatts) for uuid, limit in state.items()})
