"""The processor time of this job's control group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Scale, Setting, steps_below
from lightning_green.throttle.actuators.files import FileActuator, read_text
from lightning_green.throttle.actuators.nvml_power_limit import check_above_zero
from lightning_green.throttle.errors import ThrottleError


class CgroupCpuMax(FileActuator):
    """``cpu.max`` of the control group (version 2) that this process is in, and all that is in there with it.

    The kernel lets the group run for a part of each period and stops it for the rest, so the cores draw their idle
    power in between: a duty cycle, not a lower clock. It saves less than a power limit, where it saves at all.

    Args:
        cpus: Numbers of processors to offer; None for steps of a tenth of those that it has, down to half.
        group: The group's folder; None for that of this process.

    Raises:
        ValueError: If a number is not above 0.

    Example::

        CarbonScheduler(throttle=CgroupCpuMax([4, 2]), max_slowdown=2.0)

    """

    kind: ClassVar[str] = "cgroup cpu.max"
    scale: ClassVar[Scale] = "speed"

    def __init__(self, cpus: Sequence[float] | None = None, group: str | Path | None = None) -> None:
        super().__init__()
        self.cpus = check_above_zero("cpus", cpus)
        self.group = None if group is None else Path(group)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"group": str(self._file().parent)}

    def _file(self) -> Path:
        if self.group is None:
            lines = read_text(Path("/proc/self/cgroup")).splitlines()
            own = next((line[3:] for line in lines if line.startswith("0::")), None)
            if own is None:
                raise ThrottleError("this process is in no control group of version 2")
            self.group = Path("/sys/fs/cgroup") / own.lstrip("/")
        return self.group / "cpu.max"

    @override
    def _read(self) -> dict[str, Any]:
        return {str(self._file()): read_text(self._file())}

    @override
    def _offer(self, state: dict[str, Any]) -> Sequence[Setting]:
        quota, period = _parse(next(iter(state.values())))
        present = float(os.cpu_count() or 1) if quota is None else quota / period
        wanted = steps_below(present, 0.01, self.fractions) if self.cpus is None else sorted(self.cpus, reverse=True)
        return [Setting(f"{cpus:g} CPUs", cpus) for cpus in (present, *(want for want in wanted if want < present))]

    @override
    def _apply(self, setting: Setting, state: dict[str, Any]) -> None:
        ((path, text),) = state.items()
        _, period = _parse(text)
        self._write({path: f"{max(1000, round(float(setting.value) * period))} {period}"})


def _parse(text: str) -> tuple[int | None, int]:
    quota, _, period = text.partition(" ")
    try:
        return (None if quota == "max" else int(quota)), int(period or 100_000)
    except ValueError as error:
        raise ThrottleError(f"cpu.max holds {text!r}, which cannot be read") from error
