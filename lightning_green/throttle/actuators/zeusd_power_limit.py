"""Power limit of NVIDIA GPUs through zeusd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from typing_extensions import override

from lightning_green.throttle.actuator import Scale
from lightning_green.throttle.actuators.zeusd_actuator import ZeusdActuator
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.settings import Setting, check_positive, power_settings


class ZeusdPowerLimit(ZeusdActuator):
    """Set the power limit of NVIDIA GPUs through zeusd, without root.

    Args:
        watts: Limits to offer per GPU, in W; None for 90 % to 50 % of the original limit in steps of 10 %.
        gpu_ids: Physical indices of the GPUs; None for the GPUs of the job.
        socket: Path of zeusd's socket; None for ``ZEUSD_SOCK_PATH``, or ``/run/zeusd/zeusd.sock`` if it is not set.

    Raises:
        ValueError: If a limit is not above 0.

    Examples:
        ```python
        CarbonScheduler(throttle=ZeusdPowerLimit(), max_slowdown=1.15)
        ```

    """

    kind: ClassVar[str] = "zeusd power limit"
    auto_device: ClassVar[Literal["cpu", "gpu"] | None] = "gpu"
    scale: ClassVar[Scale] = "power"

    def __init__(
        self,
        watts: Sequence[float] | None = None,
        gpu_ids: Sequence[int] | None = None,
        socket: str | None = None,
    ) -> None:
        super().__init__(gpu_ids, socket)
        self.watts = check_positive("watts", watts)

    @override
    def read_state(self) -> dict[str, Any]:
        response = self.daemon.call("GET", "/gpu/get_power_limit", {"gpu_ids": ",".join(self._gpu_indices())})
        return {gpu: _milliwatts(limit, "power_limit_mw") for gpu, limit in response.items()}

    @override
    def write_state(self, state: dict[str, Any]) -> None:
        for gpu, milliwatts in state.items():
            self._post("/gpu/set_power_limit", [str(int(gpu))], power_limit_mw=int(milliwatts))

    @override
    def offer_settings(self, state: dict[str, Any]) -> Sequence[Setting]:
        limits = self.daemon.call("GET", "/gpu/get_power_limit_constraints", {"gpu_ids": ",".join(state)})
        lowest = max(_milliwatts(limit, "min_power_limit_mw") for limit in limits.values()) / 1000.0
        return power_settings(min(state.values()) / 1000.0, lowest, self.watts, self.fractions)

    @override
    def apply_setting(self, setting: Setting, state: dict[str, Any]) -> None:
        milliwatts = round(float(setting.value) * 1000.0)
        self.write_state({gpu: min(limit, milliwatts) for gpu, limit in state.items()})


def _milliwatts(body: Any, name: str) -> int:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, int):
        raise ThrottleError(f"the response of zeusd has no `{name}`")
    return value
