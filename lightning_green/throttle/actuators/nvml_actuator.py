"""Base class of the actuators that use NVML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from typing_extensions import override

from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.actuators.nvml_cards import REMEDY, may_change_gpus, open_cards


class NvmlActuator(Actuator):
    """Base class of the actuators that set NVIDIA GPUs through NVML. They require root.

    Args:
        gpu_ids: NVML indices or UUIDs; None for ``CUDA_VISIBLE_DEVICES``, or all GPUs if it is not set.

    """

    auto_device: ClassVar[Literal["cpu", "gpu"] | None] = "gpu"

    def __init__(self, gpu_ids: Sequence[str | int] | None) -> None:
        super().__init__()
        self.gpu_ids = None if gpu_ids is None else [str(gpu) for gpu in gpu_ids]
        self._are_gpus_named = gpu_ids is not None

    @override
    def bind_gpus(self, gpus: Sequence[str]) -> None:
        if not self._are_gpus_named:
            self.gpu_ids = list(gpus)

    @override
    def device(self) -> str:
        with open_cards(self.gpu_ids) as (_, gpus):
            return ", ".join(gpu.model for gpu in gpus)

    @override
    def find_obstacle(self, state: dict[str, Any]) -> str | None:
        return None if may_change_gpus() else f"this process lacks the permission; {REMEDY}"
