"""Frequency governor of the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuators.files import FileActuator
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.settings import Setting
from lightning_green.throttle.sysfs import read_text

CPUFREQ = "/sys/devices/system/cpu/cpufreq"
_FAST_TO_SLOW = ("performance", "ondemand", "schedutil", "conservative", "powersave")


class CpuGovernor(FileActuator):
    """Set the frequency governor of all cores of the node. Requires root and affects all processes on the node.

    With the driver ``intel_pstate`` in active mode, ``powersave`` does not select the lowest frequency but follows the
    load. The profile measures its effect in either case.

    Args:
        root: Directory of the frequency policies; None for the kernel's. The supervisor restores only those of the
            kernel after a ``kill -9``.

    Examples:
        ```python
        CarbonScheduler(throttle=CpuGovernor(), max_slowdown=1.2)
        ```

    """

    kind: ClassVar[str] = "CPU governor"

    def __init__(self, root: str | Path | None = None) -> None:
        super().__init__()
        self.root = Path(CPUFREQ if root is None else root)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"root": str(self.root)}

    @override
    def files(self) -> Sequence[Path]:
        found = sorted(self.root.glob("policy*/scaling_governor"))
        if not found:
            raise ThrottleError(f"the kernel offers no frequency governor ({self.root} contains no policy)")
        return found

    @override
    def offer_settings(self, state: dict[str, Any]) -> Sequence[Setting]:
        common = set.intersection(
            *(set(read_text(Path(path).with_name("scaling_available_governors")).split()) for path in state)
        )
        original = next(iter(state.values()))
        rank = _FAST_TO_SLOW.index(original) if original in _FAST_TO_SLOW else -1
        slower = [name for name in _FAST_TO_SLOW[rank + 1 :] if name in common]
        return [Setting(name, name) for name in (original, *slower)]

    @override
    def apply_setting(self, setting: Setting, state: dict[str, Any]) -> None:
        self.write_state(dict.fromkeys(state, setting.value))
