"""A power limit for the CPU packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.energy.rapl import POWERCAP, rapl_zones
from lightning_green.throttle.actuator import Scale, Setting
from lightning_green.throttle.actuators.files import FileActuator, read_text
from lightning_green.throttle.actuators.nvml_power_limit import check_above_zero, power_settings
from lightning_green.throttle.errors import ThrottleError


class RaplPowerLimit(FileActuator):
    """RAPL's long-term limit of every package of the node; it needs root and slows down all that runs there.

    Args:
        watts: Limits to offer, per package, in W; None for steps of a tenth of the limit that was found, down to half.
        powercap: The folder of the zones.

    Raises:
        ValueError: If a limit is not above 0.

    Example::

        CarbonScheduler(throttle=RaplPowerLimit([120, 90]), max_slowdown=1.15)

    """

    kind: ClassVar[str] = "RAPL power limit"
    scale: ClassVar[Scale] = "power"

    def __init__(self, watts: Sequence[float] | None = None, powercap: str | Path = POWERCAP) -> None:
        super().__init__()
        self.watts = check_above_zero("watts", watts)
        self.powercap = Path(powercap)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"powercap": str(self.powercap)}

    @override
    def _read(self) -> dict[str, Any]:
        found = {}
        for zone, component in rapl_zones(self.powercap):
            for name in zone.glob("constraint_*_name") if component == "cpu" else ():
                if read_text(name) == "long_term":
                    limit = name.with_name(name.name.replace("_name", "_power_limit_uw"))
                    found[str(limit)] = read_text(limit)
        if not found:
            raise ThrottleError(f"there is no package with a long-term limit in {self.powercap}")
        return found

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        present = min(int(text) for text in state.values()) / 1e6
        return power_settings(present, 1.0, self.watts, self.fractions)

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        wanted = round(float(setting.value) * 1e6)
        self._write({path: min(int(text), wanted) for path, text in state.items()})
