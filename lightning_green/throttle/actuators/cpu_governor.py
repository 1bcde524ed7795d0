"""The kernel's frequency governor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Setting
from lightning_green.throttle.actuators.files import FileActuator, read_text
from lightning_green.throttle.errors import ThrottleError

_FROM_FAST_TO_SLOW = ("performance", "ondemand", "schedutil", "conservative", "powersave")


class CpuGovernor(FileActuator):
    """The frequency governor of every core of the node; it needs root and slows down all that runs there.

    With the driver ``intel_pstate`` in its active mode, ``powersave`` is not the lowest frequency but a governor that
    follows the load; :class:`~lightning_green.throttle.profile.ThrottleProfile` measures what it is worth.

    Args:
        root: The folder of the policies.

    Example::

        CarbonScheduler(throttle=CpuGovernor(), max_slowdown=1.2)

    """

    kind: ClassVar[str] = "CPU governor"

    def __init__(self, root: str | Path = "/sys/devices/system/cpu/cpufreq") -> None:
        super().__init__()
        self.root = Path(root)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"root": str(self.root)}

    @override
    def _read(self) -> dict[str, Any]:
        found = {str(path): read_text(path) for path in sorted(self.root.glob("policy*/scaling_governor"))}
        if not found:
            raise ThrottleError(f"the kernel offers no frequency governor ({self.root} has no policy)")
        return found

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        common = set.intersection(
            *(set(read_text(Path(path).with_name("scaling_available_governors")).split()) for path in state)
        )
        present = next(iter(state.values()))
        rank = _FROM_FAST_TO_SLOW.index(present) if present in _FROM_FAST_TO_SLOW else -1
        slower = [name for name in _FROM_FAST_TO_SLOW[rank + 1 :] if name in common]
        return [Setting(name, name) for name in (present, *slower)]

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        self._write(dict.fromkeys(state, setting.value))
