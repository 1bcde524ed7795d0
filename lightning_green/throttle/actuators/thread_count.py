"""The number of threads that torch computes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from typing_extensions import override

from lightning_green.throttle.actuator import Actuator, Setting
from lightning_green.throttle.actuators.nvml_power_limit import check_above_zero


class ThreadCount(Actuator):
    """``torch.set_num_threads``. It may change the last bits of a sum, so ``throttle="auto"`` leaves it alone.

    Args:
        threads: Numbers to offer; None for half of those that are in use, and a quarter.

    Raises:
        ValueError: If a number is not above 0.

    Example::

        CarbonScheduler(throttle=ThreadCount([4, 2]), max_slowdown=2.0)

    """

    kind: ClassVar[str] = "thread count"
    survives: ClassVar[bool] = False

    def __init__(self, threads: Sequence[int] | None = None) -> None:
        super().__init__()
        self.threads = check_above_zero("threads", threads)

    @override
    def _read(self) -> dict[str, Any]:
        return {"threads": torch.get_num_threads()}

    @override
    def _write(self, state: dict[str, Any]) -> None:
        torch.set_num_threads(int(state["threads"]))

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        present = int(state["threads"])
        wanted = {present // 2, present // 4} if self.threads is None else {int(number) for number in self.threads}
        fewer = sorted((number for number in wanted if 1 <= number < present), reverse=True)
        return [Setting(f"{number} threads", number) for number in (present, *fewer)]

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        torch.set_num_threads(int(float(setting.value)))
