"""CPU and DRAM energy from RAPL's counters."""

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
_MOST_WATTS = 1500.0  # more than any package or its memory draws
_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")  # AMD's are called so too; `intel-rapl-mmio` repeats a package


class RaplMeter(SampledMeter):
    """Energy of the node's CPU packages and, where the CPU counts it, of its memory, from ``/sys/class/powercap``.

    The counters wrap around every few minutes to hours; the time between two samples is far below that. A package
    counts for all that runs on it: on a shared node, the other jobs' energy is in it. Since 2020 its files are
    readable by root alone on most machines; :attr:`remedy` is the line that opens them.

    Args:
        every: Time between two samples.
        powercap: The folder of the zones.

    Raises:
        ValueError: If ``every`` cannot be read or is shorter than a tenth of a second.

    Example::

        EmissionsTracker(meter=RaplMeter(), grid="typical:DE")

    """

    name = "RAPL"

    def __init__(self, every: str | timedelta = "10s", powercap: str | Path = POWERCAP) -> None:
        self.powercap = Path(powercap)
        super().__init__(every)

    @override
    def _reset(self) -> None:
        super()._reset()
        self._zones: list[_Zone] = []

    @override
    def _open(self) -> dict[Component, Quality]:
        refused: list[str] = []
        whole: set[Component] = set()
        for path, component in rapl_zones(self.powercap):
            try:
                self._zones.append(_Zone(path, component))
            except PermissionError:  # noqa: PERF203  (once, at start)
                refused.append(path.name)
            except (OSError, ValueError) as error:
                self.problem = f"RAPL's zone {path.name} cannot be read ({error})."
                whole.add(component)
        if refused:
            self.remedy = f"sudo chmod o+r {self.powercap}/intel-rapl:*/energy_uj"
            self.problem = f"RAPL may be read by root alone on this machine; `{self.remedy}` opens it."
            # a part of the packages would pass for all of them
            self._zones = []
        elif not self._zones and self.problem is None:
            self.problem = f"This machine has no RAPL ({self.powercap} holds no zone of a package)."
        qualities: dict[Component, Quality] = {"cpu": "unavailable"}
        for zone in self._zones:
            qualities[zone.component] = "modelled" if zone.component in whole else "measured"
        return qualities

    @override
    def _advance(self) -> dict[Component, float]:
        joules: dict[Component, float] = {}
        for zone in self._zones:
            try:
                added = zone.counter.add(time.monotonic(), zone.read())
            except (OSError, ValueError) as error:
                self.problem = f"RAPL's zone {zone.path.name} cannot be read for now ({error})."
                continue
            if added.guessed:
                self._guessed(zone.component)
                self.problem = (
                    f"RAPL's zone {zone.path.name} was reset or silent for longer than it counts; the gap is filled "
                    "with the power before it."
                )
            joules[zone.component] = joules.get(zone.component, 0.0) + added.joules
        return joules


class _Zone:
    """One zone and what has been read from it so far."""

    def __init__(self, path: Path, component: Component) -> None:
        self.path, self.component = path, component
        wraps_at = float((path / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6
        self.counter = EnergyCounter(_MOST_WATTS, wraps_at)
        self.counter.add(time.monotonic(), self.read())

    def read(self) -> float:
        return int((self.path / "energy_uj").read_text(encoding="ascii")) / 1e6


def rapl_zones(powercap: Path) -> list[tuple[Path, Component]]:
    """Return the zones that add up: packages as ``cpu``, memory as ``ram``.

    Cores and graphics are parts of a package and left out, and so is ``psys``, which holds the packages.
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
