"""All examinations of a machine."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from lightning_green.doctor.actuators import examine_actuators
from lightning_green.doctor.disk import examine_disk
from lightning_green.doctor.finding import Diagnosis, Finding
from lightning_green.doctor.gpus import examine_gpus
from lightning_green.doctor.launchers import examine_launchers
from lightning_green.doctor.meters import examine_meter
from lightning_green.doctor.packages import examine_packages, examine_versions
from lightning_green.doctor.sources import examine_grid
from lightning_green.energy.meter import Meter
from lightning_green.grid.signal import GridSignal


def examine(meter: Meter, grid: GridSignal | None, run_dir: Path) -> Diagnosis:
    """Return what this machine can measure, throttle and reach. No setting is changed and no file is written.

    It takes a few seconds, also without a network.

    Args:
        meter: The meter, before its start.
        grid: The carbon intensity to examine; None for all services of the zone in ``LIGHTNING_GREEN_ZONE``.
        run_dir: Run directory, which may not exist yet.

    Examples:
        ```python
        for finding in examine(build_meter("auto"), None, Path("lightning_green_runs")).findings:
            print(finding.level, finding.name, finding.text, finding.remedy)
        ```

    """
    return Diagnosis(platform.node(), tuple(_findings(meter, grid, run_dir)))


def _findings(meter: Meter, grid: GridSignal | None, run_dir: Path) -> Iterator[Finding]:
    yield from examine_meter(meter)
    gpus = list(examine_gpus())
    yield from gpus
    yield from examine_actuators(has_gpu=any(one.name.startswith("GPU ") for one in gpus))
    yield from examine_grid(grid)
    yield from examine_launchers()
    yield from examine_disk(run_dir)
    yield from examine_versions()
    yield from examine_packages()
