"""Locked clocks for the job's NVIDIA cards, without root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Actuator, Setting
from lightning_green.throttle.nvml_power_limit import check_above_zero
from lightning_green.throttle.zeusd import Zeusd, zeusd_gpus


class ZeusdLockedClocks(Actuator):
    """The highest clock of the cards' processors, set by a zeusd that an administrator started.

    Neither the driver nor zeusd tells which clocks are locked, so what is restored is no lock.

    Args:
        megahertz: Clocks to offer; zeusd does not tell which ones there are.
        gpu_ids: Physical indices of the cards; None for the job's.
        socket: Path of zeusd's socket; None for ``ZEUSD_SOCK_PATH``, or ``/run/zeusd/zeusd.sock``.

    Raises:
        ValueError: If a clock is not above 0.

    Example::

        CarbonScheduler(throttle=ZeusdLockedClocks([1400, 1200]), max_slowdown=1.1)

    """

    kind: ClassVar[str] = "zeusd locked clocks"

    def __init__(
        self,
        megahertz: Sequence[float] | None = None,
        gpu_ids: Sequence[int] | None = None,
        socket: str | None = None,
    ) -> None:
        super().__init__()
        self.megahertz = check_above_zero("megahertz", megahertz) or []
        self.gpu_ids = None if gpu_ids is None else [int(gpu) for gpu in gpu_ids]
        self.daemon = Zeusd(socket)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"gpu_ids": self.gpu_ids, "socket": self.daemon.path}

    @override
    def _read(self) -> dict[str, Any]:
        self.daemon.check()
        return {str(gpu): None for gpu in zeusd_gpus(self.gpu_ids)}

    @override
    def _write(self, state: dict[str, Any]) -> None:
        self.daemon.call("POST", "/gpu/reset_gpu_locked_clocks", {"gpu_ids": ",".join(state), "block": "true"})

    @override
    def _probe(self, state: dict[str, Any]) -> None:
        self.daemon.check()  # a reset would take away a lock that somebody else has set

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        clocks = sorted(self.megahertz, reverse=True)
        return [Setting("unlocked", 0), *(Setting(f"{clock:g} MHz", clock) for clock in clocks)]

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        clock = int(float(setting.value))
        query = {"gpu_ids": ",".join(state), "min_clock_mhz": 0, "max_clock_mhz": clock, "block": "true"}
        self.daemon.call("POST", "/gpu/set_gpu_locked_clocks", query)
