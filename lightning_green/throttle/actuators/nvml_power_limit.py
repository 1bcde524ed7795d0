"""A power limit for the job's NVIDIA cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Scale, Setting, steps_below
from lightning_green.throttle.actuators.nvml_actuator import NvmlActuator
from lightning_green.throttle.actuators.nvml_cards import cards


class NvmlPowerLimit(NvmlActuator):
    """The driver's power limit; it needs root, in a container ``SYS_ADMIN``.

    Args:
        watts: Limits to offer, per card, in W; None for steps of a tenth of the limit that was found, down to half.
        gpu_ids: Cards; None for those of ``CUDA_VISIBLE_DEVICES``, or all.

    Raises:
        ValueError: If a limit is not above 0.

    Example::

        CarbonScheduler(throttle=NvmlPowerLimit(watts=[300, 250]), max_slowdown=1.15)

    """

    kind: ClassVar[str] = "NVML power limit"
    scale: ClassVar[Scale] = "power"

    def __init__(self, watts: Sequence[float] | None = None, gpu_ids: Sequence[str | int] | None = None) -> None:
        super().__init__(gpu_ids)
        self.watts = check_above_zero("watts", watts)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"gpu_ids": self.gpu_ids}

    @override
    def _read(self) -> dict[str, Any]:
        with cards(self.gpu_ids) as (nvml, gpus):
            return {gpu.uuid: nvml.nvmlDeviceGetPowerManagementLimit(gpu.handle) for gpu in gpus}

    @override
    def _write(self, state: dict[str, Any]) -> None:
        with cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                nvml.nvmlDeviceSetPowerManagementLimit(gpu.handle, state[gpu.uuid])

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        with cards(list(state)) as (nvml, gpus):
            lowest = max(nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu.handle)[0] for gpu in gpus) / 1000.0
        return power_settings(min(state.values()) / 1000.0, lowest, self.watts, self.fractions)

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        self._write({uuid: min(limit, round(float(setting.value) * 1000.0)) for uuid, limit in state.items()})


def check_above_zero(name: str, values: Sequence[float] | None) -> list[float] | None:
    """Return ``values`` as floats.

    Raises:
        ValueError: If one of them is not above 0, or there is none.

    """
    if values is None:
        return None
    if isinstance(values, (str, bytes)) or not list(values) or not all(float(value) > 0.0 for value in values):
        raise ValueError(f"`{name}` should be a list of numbers above 0, got {values!r}.")
    return [float(value) for value in values]


def power_settings(
    present: float, lowest: float, asked: Sequence[float] | None, fractions: Sequence[float]
) -> list[Setting]:
    """Return the present limit in W and those below it that the device takes, from more to less."""
    wanted = steps_below(present, lowest, fractions) if asked is None else sorted(asked, reverse=True)
    return [Setting(f"{watts:g} W", watts) for watts in [present, *(w for w in wanted if lowest <= w < present)]]
