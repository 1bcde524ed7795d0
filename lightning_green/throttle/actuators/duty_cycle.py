"""Sleeping between batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Actuator, Scale, Setting
from lightning_green.throttle.actuators.nvml_power_limit import check_above_zero


class DutyCycle(Actuator):
    """Sleeps after each batch, so that the device works a fraction of the time.

    It is named as what it is: the energy of a step does not fall, and while it sleeps the device draws its idle power.
    It lowers the mean power where that is what is asked for (a fuse, a shared limit), and emissions hardly ever.
    ``throttle="auto"`` leaves it alone.

    Args:
        fractions: Fractions of the time to work, in (0, 1).
        sleep: Waits some seconds.

    Raises:
        ValueError: If a fraction is out of its range.

    Example::

        CarbonScheduler(throttle=DutyCycle([0.75, 0.5]), max_slowdown=2.0)

    """

    kind: ClassVar[str] = "duty cycle"
    survives: ClassVar[bool] = False
    scale: ClassVar[Scale] = "speed"

    def __init__(self, fractions: Sequence[float] = (0.75, 0.5), sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__()
        self.fractions = check_above_zero("fractions", fractions) or []
        if any(fraction >= 1.0 for fraction in self.fractions):
            raise ValueError(f"`fractions` should lie between 0 and 1, got {list(fractions)!r}.")
        self._fraction, self._sleep = 1.0, sleep

    @override
    def _read(self) -> dict[str, Any]:
        return {"fraction": self._fraction}

    @override
    def _write(self, state: dict[str, Any]) -> None:
        self._fraction = float(state["fraction"])

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        return [Setting(f"{part:.0%} of the time", part) for part in (1.0, *sorted(self.fractions, reverse=True))]

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        self._fraction = float(setting.value)

    @override
    def on_step(self, seconds: float) -> None:
        if self._fraction < 1.0:
            self._sleep(seconds * (1.0 / self._fraction - 1.0))
