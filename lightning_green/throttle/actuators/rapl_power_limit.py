"""Power limit of the CPU packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.energy.rapl import POWERCAP, rapl_zones
from lightning_green.throttle.actuator import Scale
from lightning_green.throttle.actuators.files import FileActuator
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.settings import Setting, check_positive, power_settings
from lightning_green.throttle.sysfs import read_text


class RaplPowerLimit(FileActuator):
    """Set RAPL's long-term limit of all CPU packages. Requires root and affects all processes on the node.

    Args:
        watts: Limits to offer per package, in W; None for 90 % to 50 % of the original limit in steps of 10 %.
        powercap: Directory of the RAPL zones; None for the kernel's. The supervisor restores only those of the kernel
            after a ``kill -9``.

    Raises:
        ValueError: If a limit is not above 0.

    Examples:
        ```python
        CarbonScheduler(throttle=RaplPowerLimit([120, 90]), max_slowdown=1.15)
        ```

    """

    kind: ClassVar[str] = "RAPL power limit"
    scale: ClassVar[Scale] = "power"

    def __init__(self, watts: Sequence[float] | None = None, powercap: str | Path | None = None) -> None:
        super().__init__()
        self.watts = check_positive("watts", watts)
        self.powercap = Path(POWERCAP if powercap is None else powercap)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"powercap": str(self.powercap)}

    @override
    def files(self) -> Sequence[Path]:
        found = [
            name.with_name(name.name.replace("_name", "_power_limit_uw"))
            for zone, component in rapl_zones(self.powercap)
            for name in (zone.glob("constraint_*_name") if component == "cpu" else ())
            if read_text(name) == "long_term"
        ]
        if not found:
            raise ThrottleError(f"{self.powercap} contains no CPU package with a long-term power limit")
        return found

    @override
    def offer_settings(self, state: dict[str, Any]) -> Sequence[Setting]:
        original = min(int(text) for text in state.values()) / 1e6
        return power_settings(original, 1.0, self.watts, self.fractions)

    @override
    def apply_setting(self, setting: Setting, state: dict[str, Any]) -> None:
        microwatts = round(float(setting.value) * 1e6)
        self.write_state({path: min(int(text), microwatts) for path, text in state.items()})
