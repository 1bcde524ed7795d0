"""A power limit for the job's NVIDIA cards, without root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Scale, Setting
from lightning_green.throttle.actuators.nvml_power_limit import check_above_zero, power_settings
from lightning_green.throttle.actuators.zeusd_actuator import ZeusdActuator
from lightning_green.throttle.errors import ThrottleError


class ZeusdPowerLimit(ZeusdActuator):
    """The driver's power limit, set by a zeusd that an administrator started.

    Args:
        watts: Limits to offer, per card, in W; None for steps of a tenth of the limit that was found, down to half.
        gpu_ids: Physical indices of the cards; None for the job's.
        socket: Path of zeusd's socket; None for ``ZEUSD_SOCK_PATH``, or ``/run/zeusd/zeusd.sock``.

    Raises:
        ValueError: If a limit is not above 0.

    Example::

        CarbonScheduler(throttle=ZeusdPowerLimit(), max_slowdown=1.15)

    """

    kind: ClassVar[str] = "zeusd power limit"
    scale: ClassVar[Scale] = "power"

    def __init__(
        self,
        watts: Sequence[float] | None = None,
        gpu_ids: Sequence[int] | None = None,
        socket: str | None = None,
    ) -> None:
        super().__init__(gpu_ids, socket)
        self.watts = check_above_zero("watts", watts)

    @override
    def _read(self) -> dict[str, Any]:
        answer = self.daemon.call("GET", "/gpu/get_power_limit", {"gpu_ids": ",".join(self._cards())})
        return {gpu: _milliwatts(limit, "power_limit_mw") for gpu, limit in answer.items()}

    @override
    def _write(self, state: dict[str, Any]) -> None:
        for gpu, milliwatts in state.items():
            self._post("/gpu/set_power_limit", [gpu], power_limit_mw=milliwatts)

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        limits = self.daemon.call("GET", "/gpu/get_power_limit_constraints", {"gpu_ids": ",".join(state)})
        lowest = max(_milliwatts(limit, "min_power_limit_mw") for limit in limits.values()) / 1000.0
        return power_settings(min(state.values()) / 1000.0, lowest, self.watts, self.fractions)

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        self._write({gpu: min(limit, round(float(setting.value) * 1000.0)) for gpu, limit in state.items()})


def _milliwatts(body: Any, name: str) -> int:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, int):
        raise ThrottleError(f"zeusd answers without `{name}`")
    return value
