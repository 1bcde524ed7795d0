"""What a meter would measure on this machine, before a training is started."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict, dataclass
from typing import Any

from lightning_green.energy.guarded import GuardedMeter
from lightning_green.energy.meter import COMPONENTS, Component, Meter, Quality

_START_SECONDS = 60.0  # longest time for a meter to start; the detection of the hardware takes several seconds on some
_SAMPLE_SECONDS = 10.0  # longest time for a sample


@dataclass(frozen=True)
class MeteredComponent:
    """How the energy of one component is counted.

    Attributes:
        component: ``"cpu"``, ``"gpu"``, ``"ram"`` or ``"other"``.
        quality: ``"measured"``, ``"modelled"`` or ``"unavailable"``.
        source: Where the energy comes from, such as ``"RAPL"``.
        watts: Mean power of the survey; None if it is unavailable.

    """

    component: Component
    quality: Quality
    source: str
    watts: float | None


@dataclass(frozen=True)
class Survey:
    """What a meter measures on one machine.

    Attributes:
        host: Name of the machine.
        meter: Name of the meter.
        seconds: Time over which the power was measured.
        components: The components that the meter counts.
        problems: Reasons for what is unavailable or only modeled.
        remedy: A command that makes a better source readable, or None.

    """

    host: str
    meter: str
    seconds: float
    components: tuple[MeteredComponent, ...]
    problems: tuple[str, ...]
    remedy: str | None

    @property
    def is_known(self) -> bool:
        """Whether the energy of any component is measured or modeled."""
        return any(one.quality != "unavailable" for one in self.components)

    def to_json(self) -> dict[str, Any]:
        """Return the survey as a JSON object."""
        return asdict(self)


def survey(meter: Meter, seconds: float = 3.0) -> Survey:
    """Start a meter, let it count for some time, and close it.

    A meter that raises or hangs is reported as unavailable, as it would be in a training.

    Args:
        meter: The meter, before its start.
        seconds: Time over which the power is measured.

    Examples:
        ```python
        for one in survey(build_meter("auto")).components:
            print(one.component, one.quality, one.source, one.watts)
        ```

    """
    guarded = GuardedMeter(meter)
    guarded.start()
    guarded.sample(_START_SECONDS)  # after the start, in the same thread
    first, begin = guarded.read(), time.monotonic()
    time.sleep(seconds)
    guarded.sample(_SAMPLE_SECONDS)
    last, passed = guarded.read(), time.monotonic() - begin
    components = tuple(
        MeteredComponent(
            name,
            last[name].quality,
            str(meter.label(name)),
            None
            if last[name].quality == "unavailable" or name not in first
            else (last[name].joules - first[name].joules) / passed,
        )
        for name in COMPONENTS
        if name in last
    )
    remedy = getattr(meter, "remedy", None)
    lines = dict.fromkeys([*getattr(meter, "unused", []), *(guarded.problem or "").splitlines()])
    problems = tuple(line for line in lines if not (remedy and remedy in line))
    guarded.close()
    return Survey(socket.gethostname(), guarded.name, passed, components, problems, remedy)
