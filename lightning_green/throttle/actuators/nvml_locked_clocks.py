"""Locked clocks for the job's NVIDIA cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Scale, Setting, steps_below
from lightning_green.throttle.actuators.nvml_actuator import NvmlActuator
from lightning_green.throttle.actuators.nvml_cards import cards
from lightning_green.throttle.actuators.nvml_power_limit import check_above_zero


class NvmlLockedClocks(NvmlActuator):
    """The highest clock of the cards' processors; it needs root, in a container ``SYS_ADMIN``.

    The driver does not tell which clocks are locked, so what is restored is no lock, or ``previous``.

    Args:
        megahertz: Clocks to offer; None for steps of a tenth of the highest one, down to half.
        gpu_ids: Cards; None for those of ``CUDA_VISIBLE_DEVICES``, or all.
        previous: Lowest and highest clock in MHz that the site locks its cards to; None where it does not.

    Raises:
        ValueError: If a clock is not above 0.

    Example::

        CarbonScheduler(throttle=NvmlLockedClocks([1400, 1200]), max_slowdown=1.15)

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
        self.megahertz = check_above_zero("megahertz", megahertz)
        self.previous = None if previous is None else [int(clock) for clock in previous]

    @override
    def arguments(self) -> dict[str, Any]:
        return {"gpu_ids": self.gpu_ids, "previous": self.previous}

    @override
    def _read(self) -> dict[str, Any]:
        with cards(self.gpu_ids) as (_, gpus):
            return {gpu.uuid: self.previous for gpu in gpus}

    @override
    def _write(self, state: dict[str, Any]) -> None:
        with cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                if state[gpu.uuid] is None:
                    nvml.nvmlDeviceResetGpuLockedClocks(gpu.handle)
                else:
                    nvml.nvmlDeviceSetGpuLockedClocks(gpu.handle, *state[gpu.uuid])

    @override
    def _probe(self, state: dict[str, Any]) -> None:
        # the same permission, without taking away a lock that somebody else has set
        with cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                limit = nvml.nvmlDeviceGetPowerManagementLimit(gpu.handle)
                nvml.nvmlDeviceSetPowerManagementLimit(gpu.handle, limit)

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        with cards(list(state)) as (nvml, gpus):
            memory = max(nvml.nvmlDeviceGetSupportedMemoryClocks(gpus[0].handle))
            known = sorted(nvml.nvmlDeviceGetSupportedGraphicsClocks(gpus[0].handle, memory))
        highest = known[-1] if self.previous is None else self.previous[1]
        wanted = steps_below(highest, known[0], self.fractions) if self.megahertz is None else self.megahertz
        nearest = sorted({min(known, key=lambda clock: abs(clock - want)) for want in wanted}, reverse=True)
        return [Setting(f"{clock} MHz", clock) for clock in [highest, *(c for c in nearest if c < highest)]]

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        with cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                # the lowest stays open: an idle card may still go down
                nvml.nvmlDeviceSetGpuLockedClocks(gpu.handle, 0, int(setting.value))
