"""Energy of the CPU and the memory from the counters of RAPL."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from pathlib import Path

from typing_extensions import override

from lightning_green.energy.counter import EnergyCounter
from lightning_green.energy.meter import Component, Quality
from lightning_green.energy.sampled import SampledMeter

POWERCAP = "/sys/class/powercap"
_MAX_WATTS = 1500.0  # upper bound for a package or its memory
_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")  # AMD uses the same names; `intel-rapl-mmio` repeats a package


class RaplMeter(SampledMeter):
    """Measure the energy of the CPU packages and, if the CPU counts it, of the memory, with RAPL.

    The energy of a package includes all processes of the node, so that of other jobs on a shared node too. The counters
    wrap around every few minutes to hours, which is far longer than ``every``. Since 2020 the files are readable by
    root only on most machines. ``remedy`` contains the command that makes them readable.

    Args:
        every: Time between two samples, at least 0.1 s.
        powercap: Directory of the RAPL zones.

    Raises:
        ValueError: If ``every`` cannot be parsed or is shorter than 0.1 s.

    Examples:
        ```python
        EmissionsTracker(meter=RaplMeter(), grid="typical:DE")
        ```

    """

    name = "RAPL"

    def __init__(self, every: str | timedelta = "10s", powercap: str | Path = POWERCAP) -> None:
        self.powercap = Path(powercap)
        super().__init__(every)

    @override
    def _reset(self) -> None:
        super()._reset()
        self.remedy: str | None = None
        self._zones: list[_Zone] = []

    @override
    def _open_sensor(self) -> dict[Component, Quality]:
        refused: list[str] = []
        incomplete: set[Component] = set()
        for path, component in rapl_zones(self.powercap):
            try:
                self._zones.append(_Zone(path, component))
            except PermissionError:  # noqa: PERF203  (once, at start)
                refused.append(path.name)
            except (OSError, ValueError) as error:
                self.problem = f"The RAPL zone {path.name} cannot be read ({error})."
                incomplete.add(component)
        if refused:
            self.remedy = f"sudo chmod o+r {self.powercap}/intel-rapl:*/energy_uj"
            self.problem = f"RAPL is readable by root only on this machine. To make it readable, run `{self.remedy}`."
            # Otherwise the energy of some packages would be reported as the energy of all packages.
            self._zones = []
        elif not self._zones and self.problem is None:
            self.problem = f"This machine has no RAPL ({self.powercap} contains no zone of a package)."
        qualities: dict[Component, Quality] = {"cpu": "unavailable"}
        for zone in self._zones:
            qualities[zone.component] = "modelled" if zone.component in incomplete else "measured"
        return qualities

    @override
    def _read_sensor(self) -> dict[Component, float]:
        joules: dict[Component, float] = {}
        for zone in self._zones:
            try:
                added = zone.counter.add(time.monotonic(), zone.read())
            except (OSError, ValueError) as error:
                self.problem = f"The RAPL zone {zone.path.name} cannot be read for now ({error})."
                continue
            if added.estimated:
                self._mark_estimated(zone.component)
                self.problem = (
                    f"The RAPL zone {zone.path.name} was reset or could not be read for longer than its range. The "
                    "energy of the gap is estimated from the previous power."
                )
            joules[zone.component] = joules.get(zone.component, 0.0) + added.joules
        return joules


class _Zone:
    """Readings of one zone."""

    def __init__(self, path: Path, component: Component) -> None:
        self.path, self.component = path, component
        wraps_at = float((path / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6
        self.counter = EnergyCounter(_MAX_WATTS, wraps_at)
        self.counter.add(time.monotonic(), self.read())

    def read(self) -> float:
        return int((self.path / "energy_uj").read_text(encoding="ascii")) / 1e6


def rapl_zones(powercap: Path) -> list[tuple[Path, Component]]:
    """Return the zones without overlap: packages as ``cpu``, memory as ``ram``.

    Cores and graphics are parts of a package, and ``psys`` contains the packages, so these are excluded.

    Args:
        powercap: Directory of the zones.

    Returns:
        Directory and component of each zone.
    """
    found: list[tuple[Path, Component]] = []
    try:
        folders = sorted(path for path in powercap.iterdir() if _ZONE.fullmatch(path.name))
    except OSError:
        return []
    for path in folders:
        try:
            name = (path / "name").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if name.startswith("package"):
            found.append((path, "cpu"))
        elif name == "dram":
            found.append((path, "ram"))
    return found
