"""Locked clocks of NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Scale
from lightning_green.throttle.actuators.nvml_actuator import NvmlActuator
from lightning_green.throttle.actuators.nvml_cards import open_cards
from lightning_green.throttle.settings import Setting, check_positive, steps_below


class NvmlLockedClocks(NvmlActuator):
    """Set the highest graphics clock of NVIDIA GPUs. Requires root; in a container, ``SYS_ADMIN``.

    The driver does not report locked clocks, so restoring removes the lock, or applies ``previous``.

    Args:
        megahertz: Clocks to offer, in MHz; None for 90 % to 50 % of the highest clock in steps of 10 %.
        gpu_ids: NVML indices or UUIDs; None for ``CUDA_VISIBLE_DEVICES``, or all GPUs if it is not set.
        previous: Lowest and highest clock to which the site locks its GPUs, in MHz; None if it does not.

    Raises:
        ValueError: If a clock is not above 0.

    Examples:
        ```python
        CarbonScheduler(throttle=NvmlLockedClocks([1400, 1200]), max_slowdown=1.15)
        ```

    """

    kind: ClassVar[str] = "NVML locked clocks"
    scale: ClassVar[Scale] = "speed"

    def __init__(
        self,
        megahertz: Sequence[float] | None = None,
        gpu_ids: Sequence[str | int] | None = None,
        previous: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gpu_ids)
        self.megahertz = check_positive("megahertz", megahertz)
        self.previous = None if previous is None else [int(clock) for clock in previous]

    @override
    def arguments(self) -> dict[str, Any]:
        return {"gpu_ids": self.gpu_ids, "previous": self.previous}

    @override
    def read_state(self) -> dict[str, Any]:
        with open_cards(self.gpu_ids) as (_, gpus):
            return {gpu.uuid: self.previous for gpu in gpus}

    @override
    def write_state(self, state: dict[str, Any]) -> None:
        with open_cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                if state[gpu.uuid] is None:
                    nvml.nvmlDeviceResetGpuLockedClocks(gpu.handle)
                else:
                    nvml.nvmlDeviceSetGpuLockedClocks(gpu.handle, *state[gpu.uuid])

    @override
    def check_permission(self, state: dict[str, Any]) -> None:
        # A power limit needs the same permission, and rewriting it does not remove a lock that another program set.
        with open_cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                limit = nvml.nvmlDeviceGetPowerManagementLimit(gpu.handle)
                nvml.nvmlDeviceSetPowerManagementLimit(gpu.handle, limit)

    @override
    def offer_settings(self, state: dict[str, Any]) -> Sequence[Setting]:
        with open_cards(list(state)) as (nvml, gpus):
            memory = max(nvml.nvmlDeviceGetSupportedMemoryClocks(gpus[0].handle))
            supported = sorted(nvml.nvmlDeviceGetSupportedGraphicsClocks(gpus[0].handle, memory))
        highest = supported[-1] if self.previous is None else self.previous[1]
        requested = steps_below(highest, supported[0], self.fractions) if self.megahertz is None else self.megahertz
        nearest = sorted({min(supported, key=lambda clock: abs(clock - want)) for want in requested}, reverse=True)
        return [Setting(f"{clock} MHz", clock) for clock in [highest, *(c for c in nearest if c < highest)]]

    @override
    def apply_setting(self, setting: Setting, state: dict[str, Any]) -> None:
        with open_cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                # A lower bound of 0 lets an idle GPU lower its clock further.
                nvml.nvmlDeviceSetGpuLockedClocks(gpu.handle, 0, int(setting.value))
