"""Power limit of NVIDIA GPUs through zeusd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NoReturn

from typing_extensions import override

from lightning_green.throttle.actuator import Scale
from lightning_green.throttle.actuators.zeusd_actuator import ZeusdActuator
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.settings import Setting, check_positive, power_settings


class ZeusdPowerLimit(ZeusdActuator):
    """Set the power limit of NVIDIA GPUs through zeusd, without root.

    A site can replace this operation by a command of its own, which may fail without an error, round to whole watts, or
    change all GPUs of the node. So limits are whole watts, and are read again after each change. If a GPU of another
    job has changed too, the original limits are restored, and the actuator is not used any more.

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
    groups: ClassVar[tuple[str, ...]] = ("gpu-control", "gpu-read")

    def __init__(
        self,
        watts: Sequence[float] | None = None,
        gpu_ids: Sequence[int] | None = None,
        socket: str | None = None,
    ) -> None:
        super().__init__(gpu_ids, socket)
        self.watts = check_positive("watts", watts)
        self._shared: str | None = None
        self._others: dict[str, int] = {}

    @override
    def read_state(self) -> dict[str, Any]:
        return dict(self._read_limits(self._gpu_indices()))

    @override
    def write_state(self, state: dict[str, Any]) -> None:
        wanted = {str(int(gpu)): int(milliwatts) for gpu, milliwatts in state.items()}
        failure: ThrottleError | None = None
        for milliwatts in sorted(set(wanted.values())):
            gpus = [gpu for gpu, limit in wanted.items() if limit == milliwatts]
            try:
                self._post("/gpu/set_power_limit", gpus, power_limit_mw=milliwatts)
            except ThrottleError as error:  # the other GPUs are set nevertheless
                failure = failure or error
        if failure is not None:
            raise failure
        limits = self._read_limits(list(wanted))
        for gpu, milliwatts in wanted.items():
            if not _is_set(limits.get(gpu), milliwatts):
                raise ThrottleError(
                    f"zeusd reported success, but the power limit of GPU {gpu} is {_watts(limits.get(gpu))} instead of "
                    f"{_watts(milliwatts)}; check its command for set_power_limit"
                )

    @override
    def check_permission(self, state: dict[str, Any]) -> None:
        self._others = {gpu: limit for gpu, limit in self._read_all_limits().items() if gpu not in state}
        self.write_state(state)
        after = self._read_all_limits()
        changed = [gpu for gpu, limit in self._others.items() if after.get(gpu, limit) != limit]
        following = [gpu for gpu in changed if after[gpu] in state.values()]  # another job would set a limit of its own
        if following:
            self._refuse(following, self._others)

    @override
    def prepare_change(self, state: dict[str, Any]) -> None:
        if self._shared is not None:
            raise ThrottleError(self._shared)

    @override
    def offer_settings(self, state: dict[str, Any]) -> Sequence[Setting]:
        limits = self.daemon.call("GET", "/gpu/get_power_limit_constraints", {"gpu_ids": ",".join(state)})
        lowest = max(_milliwatts(limit, "min_power_limit_mw") for limit in limits.values()) / 1000.0
        original, *lower = power_settings(min(state.values()) / 1000.0, lowest, self.watts, self.fractions)
        watts = dict.fromkeys(math.floor(float(setting.value)) for setting in lower)
        return [original, *(Setting(f"{limit} W", float(limit)) for limit in watts if limit >= lowest)]

    @override
    def apply_setting(self, setting: Setting, state: dict[str, Any]) -> None:
        milliwatts = round(float(setting.value) * 1000.0)
        self._write_own({gpu: min(limit, milliwatts) for gpu, limit in state.items()})

    def _read_limits(self, gpus: Sequence[str] | None) -> dict[str, int]:
        """Return the power limits of GPUs in mW; None for all GPUs of the node."""
        query = None if gpus is None else {"gpu_ids": ",".join(gpus)}
        response = self.daemon.call("GET", "/gpu/get_power_limit", query)
        return {gpu: _milliwatts(limit, "power_limit_mw") for gpu, limit in response.items()}

    def _read_all_limits(self) -> dict[str, int]:
        """Return the power limits of all GPUs of the node in mW; empty if they cannot be read."""
        try:
            return self._read_limits(None)
        except ThrottleError:
            return {}

    def _write_own(self, state: dict[str, Any]) -> None:
        """Set power limits and check that no other GPU has changed with them.

        Raises:
            ThrottleError: If a limit cannot be set, or another GPU has changed.

        """
        before = self._read_all_limits()
        self.write_state(state)
        after = self._read_all_limits()
        suspects = [gpu for gpu in before if gpu not in state and after.get(gpu) not in (None, before[gpu])]
        former = {gpu: before[gpu] for gpu in state if gpu in before}
        if not suspects or former == state:
            return
        # Another job may have changed them. With the former limits, only GPUs that follow this one change again.
        self.write_state(former)
        now = self._read_all_limits()
        following = [gpu for gpu in suspects if gpu in now and now[gpu] != after[gpu]]
        if following:
            self._refuse(following, before)
        self.write_state(state)

    def _refuse(self, following: Sequence[str], before: dict[str, int]) -> NoReturn:
        """Use this actuator no more, because the site's command changes GPUs of other jobs."""
        names = [f"GPU {gpu} (originally {_watts(self._others.get(gpu, before[gpu]))})" for gpu in following]
        self._shared = (
            f"zeusd's command for set_power_limit also changes {', '.join(names)}, which the job does not use; "
            "the command needs `{gpu_id}`"
        )
        raise ThrottleError(self._shared)


def _is_set(limit: int | None, milliwatts: int) -> bool:
    """Return whether a limit in mW is the requested one, perhaps rounded down to whole watts."""
    return limit is not None and milliwatts - 1000 < limit <= milliwatts


def _watts(milliwatts: int | None) -> str:
    return "unknown" if milliwatts is None else f"{milliwatts / 1000.0:g} W"


def _milliwatts(body: Any, name: str) -> int:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, int):
        raise ThrottleError(f"the response of zeusd has no `{name}`")
    return value
