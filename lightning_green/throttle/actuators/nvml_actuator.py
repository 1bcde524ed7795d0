"""What the actuators have in common that ask NVIDIA's driver themselves."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.actuators.nvml_cards import card_models


class NvmlActuator(Actuator):
    """Base of the actuators that set the job's NVIDIA cards through NVML, as root.

    Args:
        gpu_ids: Cards; None for those of ``CUDA_VISIBLE_DEVICES``, or all.

    """

    def __init__(self, gpu_ids: Sequence[str | int] | None) -> None:
        super().__init__()
        self.gpu_ids = None if gpu_ids is None else [str(gpu) for gpu in gpu_ids]

    @override
    def bind_gpus(self, gpus: Sequence[str]) -> None:
        if self.gpu_ids is None:
            self.gpu_ids = list(gpus)

    @override
    def device(self) -> str:
        return card_models(self.gpu_ids)
