"""Energy of the CPU and the memory from the counters of RAPL."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from pathlib import Path

from typing_extensions import override

from lightning_green.energy.counter import Added, EnergyCounter, ImplausibleReadingError
from lightning_green.energy.cpu_share import EnergyShare, Share, check_share
from lightning_green.energy.meter import Component, Quality
from lightning_green.energy.sampled import SampledMeter

POWERCAP = "/sys/class/powercap"
_MAX_WATTS = 1500.0  # upper bound for a package or its memory
_STILL_SECONDS = 30.0  # a package always draws power, and its counter is updated every millisecond
_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")  # AMD uses the same names; `intel-rapl-mmio` repeats a package


class RaplMeter(SampledMeter):
    """Measure the energy of the CPU packages and, if the CPU counts it, of the memory, with RAPL.

    The energy of a package includes all processes of the machine. By default, the job's share is counted, with the
    quality ``"modelled"``: by CPU time for the packages, and by resident memory for the memory (see ``EnergyShare``).

    Each energy is counted once: two zones of a package with the same counter are one. A counter that stands still or
    jumps is ``"unavailable"``. The counters wrap around every few minutes to hours, which is far longer than ``every``.
    Since 2020 the files are readable by root only on most machines. ``remedy`` contains the command that makes them
    readable.

    Args:
        every: Time between two samples, at least 0.1 s.
        powercap: Directory of the RAPL zones.
        share: ``"job"`` for the job's share of the energy, ``"node"`` for all of it, with the quality ``"measured"``.

    Raises:
        ValueError: If ``every`` cannot be parsed or is shorter than 0.1 s, or ``share`` is unknown.

    Examples:
        ```python
        EmissionsTracker(meter=RaplMeter(), grid="typical:DE")
        ```

    """

    name = "RAPL"

    def __init__(self, every: str | timedelta = "10s", powercap: str | Path = POWERCAP, share: Share = "job") -> None:
        self.powercap, self.share = Path(powercap), check_share(share)
        super().__init__(every)

    @override
    def _reset(self) -> None:
        super()._reset()
        self.remedy: str | None = None
        self._zones: list[_Zone] = []
        self._split: EnergyShare | None = None

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
        for number, zone in enumerate(self._zones):
            for other in self._zones[:number]:
                zone.mirrors(other)
        self._split = EnergyShare(self.share)
        if self._zones:
            self._split.start()
            self.problem = self.problem or self._split.problem
        qualities: dict[Component, Quality] = {"cpu": "unavailable"}
        for zone in self._zones:
            quality: Quality = "modelled" if zone.component in incomplete else "measured"
            qualities[zone.component] = self._split.quality(zone.component, quality)
        return qualities

    @override
    def _read_sensor(self) -> dict[Component, float]:
        joules: dict[Component, float] = {}
        self._failing = set()
        seen: list[_Zone] = []
        for zone in self._zones:
            try:
                added = zone.advance()
            except ImplausibleReadingError as error:
                self._failing.add(zone.component)
                self.problem = f"The energy of the RAPL zone {zone.path.name} is unknown for now: {error}."
                continue
            except (OSError, ValueError) as error:
                self.problem = f"The RAPL zone {zone.path.name} cannot be read for now ({error})."
                continue
            mirrored = [zone.mirrors(other) for other in seen]  # all of them, because each comparison is kept
            if any(mirrored):
                continue
            seen.append(zone)
            if added.estimated:
                self._mark_estimated(zone.component)
                self.problem = (
                    f"The RAPL zone {zone.path.name} was reset or could not be read for longer than its range. The "
                    "energy of the gap is estimated from the previous power."
                )
            joules[zone.component] = joules.get(zone.component, 0.0) + added.joules
        assert self._split is not None
        return self._split.of(joules)

    @override
    def _close_sensor(self) -> None:
        if self._split is not None:
            self._split.close()

    @override
    def label(self, component: Component) -> str:
        if self.share == "node" or self._current(component) == "unavailable":
            return self.name
        return f"{self.name}; share, modelled from measured {'package' if component == 'cpu' else 'memory'} energy"

    @override
    def describe(self) -> str:
        parts = ", ".join(f"{name} {self._current(name)}" for name in sorted(self._quality))
        how = "; share, modelled from measured package energy" if self._zones and self.share == "job" else ""
        return f"{self.name} ({parts or 'not started'}{how})"


class _Zone:
    """Readings of one zone."""

    def __init__(self, path: Path, component: Component) -> None:
        self.path, self.component, self.package = path, component, _package_of(path)
        wraps_at = float((path / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6
        self._counter = EnergyCounter(_MAX_WATTS, wraps_at, _STILL_SECONDS)
        self._mirrored: set[Path] = set()
        self.value = 0.0
        self.advance()

    def advance(self) -> Added:
        self.value = self._read()
        return self._counter.add(time.monotonic(), self.value)

    def mirrors(self, other: _Zone) -> bool:
        """Whether the energy since the previous reading is the same as that of another zone, which was read before.

        The dies of some packages show the counter of the package. This one is then between two readings of the other.
        Both have to agree at the start and at the end of the interval: two dies may have the same value once.
        """
        if (self.component, self.package) != (other.component, other.package):
            return False
        before, again = other.path in self._mirrored, other._read()
        now = other.value <= self.value <= again if other.value <= again else before  # else it wrapped around
        (self._mirrored.add if now else self._mirrored.discard)(other.path)
        return before and now

    def _read(self) -> float:
        return int((self.path / "energy_uj").read_text(encoding="ascii")) / 1e6


def rapl_zones(powercap: Path) -> list[tuple[Path, Component]]:
    """Return the zones without overlap: packages as ``cpu``, memory as ``ram``.

    Cores and graphics are parts of a package, and ``psys`` contains the packages, so these are excluded. A second zone
    with the name of another one at the same place is the same energy in another directory.

    Args:
        powercap: Directory of the zones.

    Returns:
        Directory and component of each zone.
    """
    found: list[tuple[Path, Component]] = []
    names: dict[str, str] = {}  # of the packages, by their directories
    try:
        folders = sorted(path for path in powercap.iterdir() if _ZONE.fullmatch(path.name))
    except OSError:
        return []
    for path in folders:
        try:
            name = (path / "name").read_text(encoding="ascii").strip()
        except OSError:
            continue
        package = names.get(path.name.rpartition(":")[0])  # of a part; None if that package is a second zone, too
        place = name if name.startswith("package") else f"{package}, {name}"
        if place in names.values() or (name == "dram" and package is None):
            continue
        names[path.name] = place
        if name.startswith("package"):
            found.append((path, "cpu"))
        elif name == "dram":
            found.append((path, "ram"))
    return found


def _package_of(path: Path) -> str:
    """Return the package of a zone: ``"package-0"`` for all dies of package 0 and their memory."""
    top = path if path.name.count(":") == 1 else path.with_name(path.name.rpartition(":")[0])
    return "-".join((top / "name").read_text(encoding="ascii").strip().split("-")[:2])
