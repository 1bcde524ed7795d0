"""Energy meters, and the permission to read RAPL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lightning_green.doctor.finding import Finding, Level
from lightning_green.energy.meter import Meter, Quality
from lightning_green.energy.rapl import POWERCAP, rapl_zones
from lightning_green.energy.survey import Survey, survey

SECTION = "Meters"
_LEVELS: dict[Quality, Level] = {"measured": "ok", "modelled": "limited", "unavailable": "no"}
_SECONDS = 1.0


def examine_meter(meter: Meter, powercap: Path = Path(POWERCAP)) -> Iterator[Finding]:
    """Yield what a meter counts, each component with its quality, and whether RAPL can be read.

    Args:
        meter: The meter, before its start.
        powercap: Directory of the RAPL zones.

    """
    found = survey(meter, _SECONDS)
    yield _summary(found)
    for one in found.components:
        power = "" if one.watts is None else f", {one.watts:.1f} W now"
        quality = "modeled" if one.quality == "modelled" else one.quality
        text = f"{quality} by {one.source}{power}"
        if one.quality == "unavailable":
            text = "; ".join(found.problems) or f"unavailable from {one.source}"
        yield Finding(SECTION, one.component, _LEVELS[one.quality], text, _remedy(one.component, one.quality, found))
    yield examine_rapl(powercap)


def _summary(found: Survey) -> Finding:
    names = ", ".join(one.component for one in found.components if one.quality != "unavailable")
    if found.is_known:
        return Finding(SECTION, "energy", "ok", f"the meter {found.meter} counts {names}", is_required=True)
    reason = f" ({'; '.join(found.problems)})" if found.problems else ""
    return Finding(
        SECTION,
        "energy",
        "no",
        f"the meter {found.meter} counts nothing{reason}",
        "use --meter auto, or a constant power in W: --meter 250",
        is_required=True,
    )


def _remedy(component: str, quality: Quality, found: Survey) -> str | None:
    if quality == "measured":
        return None
    if component == "cpu" and found.remedy:
        return found.remedy
    if quality == "unavailable":
        return "use a meter of the machine or the outlet; see docs/meters.md"
    return None


def examine_rapl(powercap: Path = Path(POWERCAP)) -> Finding:
    """Return whether the energy counters of the CPU can be read.

    Args:
        powercap: Directory of the RAPL zones.

    """
    zones = [path for path, _ in rapl_zones(powercap)]
    if not zones:
        return Finding(
            SECTION,
            "RAPL",
            "no",
            f"the kernel offers no energy counter of the CPU in {powercap}, as in most virtual machines",
            "sudo modprobe intel_rapl_msr; in a virtual machine, meter the host",
        )
    refused = [path.name for path in zones if not os.access(path / "energy_uj", os.R_OK)]
    if refused:
        remedy = f"sudo chmod o+r {powercap}/intel-rapl:*/energy_uj  # again after each boot"
        return Finding(SECTION, "RAPL", "no", f"no permission to read {', '.join(refused)}", remedy)
    return Finding(SECTION, "RAPL", "ok", f"{len(zones)} energy counters are readable")
