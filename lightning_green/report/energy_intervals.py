"""The energy of a run, interval by interval."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightning_green.ledger.events import DevicesIdle, Event, Started
from lightning_green.ledger.measurement import Measurement
from lightning_green.ledger.totals import UNMETERED
from lightning_green.utilities.units import JOULES_PER_KWH

Array = NDArray[np.float64]


@dataclass
class Intervals:
    """Energy of one component, of all nodes.

    Args:
        starts: Start of each interval in seconds since the epoch.
        ends: End of each interval.
        joules: Energy of each interval in J, at the devices.
        pue: PUE of each interval.

    """

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    pue: list[float] = field(default_factory=list)

    def add(self, start: float, end: float, joules: float, pue: float) -> None:
        """Add an interval, unless it has no energy."""
        if joules > 0.0:
            self.starts.append(start)
            self.ends.append(max(start, end))
            self.joules.append(joules)
            self.pue.append(pue)


class EnergyIntervals:
    """The energy of every interval of a run by component, of all nodes, waiting included.

    Attributes:
        by_component: The intervals of each component.

    """

    def __init__(self) -> None:
        self.by_component: dict[str, Intervals] = defaultdict(Intervals)
        self._last: dict[tuple[int | None, int], tuple[int, float, Measurement]] = {}

    def add(self, event: Event) -> None:
        """Add the next event, as the account of its fit adds it."""
        if not event.time_utc or event.measured is None or event.accounted_fit is None:
            return
        key, at, measured = (event.accounted_fit, event.node_rank), event.timestamp, event.measured
        attempt, start, before = self._last.get(key, (None, 0.0, None))
        if attempt != event.attempt:
            start, before = at - (event.startup_s if isinstance(event, Started) else 0.0), None
        for name, energy in measured.joules.items():
            known = None if before is None else before.joules.get(name)
            spent = energy.joules - (0.0 if known is None else known.joules)
            self.by_component[name].add(start, at, spent, measured.pue)
        if isinstance(event, DevicesIdle):
            since = at if event.since is None else event.since.timestamp()
            until = at if event.until is None else event.until.timestamp()
            self.by_component[UNMETERED].add(since, until, event.idle_joules, event.pue)
        self._last[key] = event.attempt, at, measured

    def facility(self) -> tuple[Array, Array, Array]:
        """Return starts and ends of all intervals, and their energy in kWh after PUE, each of shape ``(n,)``."""
        parts = [
            (np.array(one.starts), np.array(one.ends), np.array(one.joules) * np.array(one.pue))
            for one in self.by_component.values()
        ]
        if not parts:
            return np.empty(0), np.empty(0), np.empty(0)
        starts, ends, joules = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return starts, ends, joules / JOULES_PER_KWH
