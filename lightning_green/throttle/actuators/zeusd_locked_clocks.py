"""Locked clocks for the job's NVIDIA cards, without root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Setting
from lightning_green.throttle.actuators.nvml_power_limit import check_above_zero
from lightning_green.throttle.actuators.zeusd_actuator import ZeusdActuator


class ZeusdLockedClocks(ZeusdActuator):
    """The highest clock of the cards' processors, set by a zeusd that an administrator started.

    Neither the driver nor zeusd tells which clocks are locked, so what is restored is no lock.

    Args:
        megahertz: Clocks to offer; zeusd does not tell which ones there are.
        gpu_ids: Physical indices of the cards; None for the job's.
        socket: Path of zeusd's socket; None for ``ZEUSD_SOCK_PATH``, or ``/run/zeusd/zeusd.sock``.

    Raises:
        ValueError: If a clock is not above 0.

    Example::

        CarbonScheduler(throttle=ZeusdLockedClocks([1400, 1200]), max_slowdown=1.15)

    """

    kind: ClassVar[str] = "zeusd locked clocks"

    def __init__(
        self,
        megahertz: Sequence[float] | None = None,
        gpu_ids: Sequence[int] | None = None,
        socket: str | None = None,
    ) -> None:
        super().__init__(gpu_ids, socket)
        self.megahertz = check_above_zero("megahertz", megahertz) or []

    @override
    def _read(self) -> dict[str, Any]:
        return dict.fromkeys(self._cards())

    @override
    def _write(self, state: dict[str, Any]) -> None:
        self._post("/gpu/reset_gpu_locked_clocks", list(state))

    @override
    def _probe(self, state: dict[str, Any]) -> None:
        self.daemon.check()  # a reset would take away a lock that somebody else has set

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        clocks = sorted(self.megahertz, reverse=True)
        return [Setting("unlocked", 0), *(Setting(f"{clock:g} MHz", clock) for clock in clocks)]

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        highest = int(float(setting.value))
        self._post("/gpu/set_gpu_locked_clocks", list(state), min_clock_mhz=0, max_clock_mhz=highest)
