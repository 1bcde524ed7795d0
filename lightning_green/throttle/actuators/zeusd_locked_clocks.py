"""Locked clocks of NVIDIA GPUs through zeusd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuators.zeusd import ZeusdError
from lightning_green.throttle.actuators.zeusd_actuator import ZeusdActuator
from lightning_green.throttle.settings import Setting, check_positive

_CANNOT = (400, 403)
"""HTTP status if the GPU does not have an operation, or zeusd has neither the permission nor a command for it."""


class ZeusdLockedClocks(ZeusdActuator):
    """Set the highest graphics clock of NVIDIA GPUs through zeusd, without root.

    Neither the driver nor zeusd reports locked clocks, so restoring removes the lock. A site can replace operations of
    zeusd by commands of its own, so a lock is set only after removing it has succeeded once. If zeusd can remove all
    locks of a GPU only, that of the memory clock is removed too. A command of the site that ignores its GPU changes all
    GPUs of the node, and zeusd does not report that.

    Args:
        megahertz: Clocks to offer, in MHz; zeusd does not report the supported ones.
        gpu_ids: Physical indices of the GPUs; None for the GPUs of the job.
        socket: Path of zeusd's socket; None for ``ZEUSD_SOCK_PATH``, or ``/run/zeusd/zeusd.sock`` if it is not set.
        lowest: Lower bound of the lock, in MHz. With 0, an idle GPU can lower its clock further; the commands of some
            sites do not accept 0.

    Raises:
        ValueError: If a clock is not above 0.

    Examples:
        ```python
        CarbonScheduler(throttle=ZeusdLockedClocks([1400, 1200]), max_slowdown=1.15)
        ```

    """

    kind: ClassVar[str] = "zeusd locked clocks"

    def __init__(
        self,
        megahertz: Sequence[float] | None = None,
        gpu_ids: Sequence[int] | None = None,
        socket: str | None = None,
        lowest: int = 0,
    ) -> None:
        super().__init__(gpu_ids, socket)
        self.megahertz = check_positive("megahertz", megahertz) or []
        self.lowest = int(lowest)

    @override
    def read_state(self) -> dict[str, Any]:
        return dict.fromkeys(self._gpu_indices())

    @override
    def write_state(self, state: dict[str, Any]) -> None:
        gpus = [str(int(gpu)) for gpu in state]
        try:
            self._post("/gpu/reset_gpu_locked_clocks", gpus)
        except ZeusdError as error:
            if error.status not in _CANNOT:
                raise
            try:
                self._post("/gpu/reset_locked_clocks", gpus)
            except ZeusdError:
                raise error from None

    @override
    def check_permission(self, state: dict[str, Any]) -> None:
        self.daemon.check(*self.groups)  # a reset would remove a lock that another program set

    @override
    def prepare_change(self, state: dict[str, Any]) -> None:
        self.write_state(state)

    @override
    def offer_settings(self, state: dict[str, Any]) -> Sequence[Setting]:
        clocks = sorted(self.megahertz, reverse=True)
        return [Setting("unlocked", 0), *(Setting(f"{clock:g} MHz", clock) for clock in clocks)]

    @override
    def apply_setting(self, setting: Setting, state: dict[str, Any]) -> None:
        highest = int(float(setting.value))
        self._post("/gpu/set_gpu_locked_clocks", list(state), min_clock_mhz=self.lowest, max_clock_mhz=highest)
