"""Totals of a ledger: energy, emissions and time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from lightning_green.ledger.intensity_timeline import Origin
from lightning_green.ledger.recorded_intensity import Place, RecordedIntensity
from lightning_green.ledger.segments import Segment
from lightning_green.utilities.units import JOULES_PER_KWH

PHASES = ("startup", "training", "validation", "checkpoint", "data_wait", "held", "restart")
"""Phases of a fit that energy is accounted to; ``data_wait`` is the part of the training that waits for a batch."""

UNMETERED = "unmetered"
"""Component of the energy while no meter runs: before it starts, and of idle devices after an exit. It is modeled."""

_MAX_NAMES = 100
"""Number of components, states, phases or kinds that are kept apart."""
_WORSE = ("measured", "modelled", "unavailable")


@dataclass
class NodeTotals:
    """Energy and time of one node.

    Args:
        joules: Energy in J.
        training_seconds: Time in the training phase.
        training_full_joules: Energy of the training phase at full power in J.
        held_seconds: Time paused in process.
        held_joules: Energy of that time in J.

    """

    joules: float = 0.0
    training_seconds: float = 0.0
    training_full_joules: float = 0.0
    held_seconds: float = 0.0
    held_joules: float = 0.0


@dataclass
class Totals:
    """Energy, emissions and time since the first start, over every restart and all nodes.

    Emissions are the sum over the ledger's intervals of energy x PUE x mean intensity of the interval. Energy is summed
    over nodes. Time is counted once, on the node of rank 0. Only that node reads the grid, so the energy of the other
    nodes is multiplied by the intensities that it has recorded.

    Attributes:
        joules: Energy by component in J, as measured at the devices (before PUE).
        quality: The worst quality with which each component was measured.
        joules_by_state: Energy by state: running, throttled, held, and out (devices that stay allocated after an exit).
        joules_by_phase: Energy by phase, one of ``PHASES``. The energy of waiting for data is the share of the time
            spent waiting at the mean power of the training: an upper bound, because a waiting device draws less.
        gco2e: Emissions by kind of signal in gCO2e.
        gco2e_by_source: Emissions by kind, source and quality of the intensity in gCO2e.
        intensities: The recorded intensities by place.
        unpriced_joules: Energy (after PUE) whose intensity is unknown.
        between_joules: Energy between two fits of a process in J; it is in no other sum, and 0 for a single fit.
        seconds_by_state: Time by state in seconds. ``"out"`` is the time between a planned exit and the next start,
            ``"stopped"`` the time between any other end and the next start, ``"asleep"`` the time that the machine
            slept.
        exits: Planned exits.
        exit_joules: Energy in J of saving the state for planned exits and of the restarts after them.
        out_since: Time of the last planned exit in seconds since the epoch, if the run has not started again.
        idle_watts: Idle power of the devices since then in W, as long as they stay allocated; 0 if unknown.
        kept_seconds: Time in which they are known to have stayed allocated since then, in spite of a planned release.
        kept_until: End of that time in seconds since the epoch, or None.
        allocation: What has kept them allocated, or None.
        attempts: Starts of the run.
        first_start: First start in seconds since the epoch, or None.
        last_time: Last event in seconds since the epoch, or None.
        segments: The work, of each node in order.
        nodes: Number of nodes since the last start.
        by_node: Energy and time of each node by its number.

    """

    joules: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    quality: dict[str, str] = field(default_factory=dict)
    joules_by_state: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    joules_by_phase: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    gco2e: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    gco2e_by_source: dict[tuple[str, str, str], float] = field(default_factory=lambda: defaultdict(float))
    intensities: dict[Place, RecordedIntensity] = field(default_factory=lambda: defaultdict(RecordedIntensity))
    unpriced_joules: float = 0.0
    between_joules: float = 0.0
    seconds_by_state: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    exits: int = 0
    exit_joules: float = 0.0
    out_since: float | None = None
    idle_watts: float = 0.0
    kept_seconds: float = 0.0
    kept_until: float | None = None
    allocation: str | None = None
    attempts: int = 0
    first_start: float | None = None
    last_time: float | None = None
    segments: list[Segment] = field(default_factory=list)
    nodes: int = 1
    by_node: dict[int, NodeTotals] = field(default_factory=lambda: defaultdict(NodeTotals))

    @property
    def kwh(self) -> float:
        """Energy of all components in kWh."""
        return sum(self.joules.values()) / JOULES_PER_KWH

    @property
    def hours_waited(self) -> float:
        """Hours paused in process or exited, up to the last event."""
        since = 0.0 if self.out_since is None or self.last_time is None else max(0.0, self.last_time - self.out_since)
        return (self.seconds_by_state["held"] + self.seconds_by_state["out"] + since) / 3600.0

    @property
    def elapsed_hours(self) -> float:
        """Hours since the first start."""
        if self.first_start is None or self.last_time is None:
            return 0.0
        return (self.last_time - self.first_start) / 3600.0

    @property
    def is_energy_known(self) -> bool:
        """Whether the energy of any component was measured or modeled, at least for a part of the time."""
        return any(self.known_kwh(name) is not None for name in self.quality)

    def known_kwh(self, component: str) -> float | None:
        """Return the energy of a component in kWh; None if it was never available.

        A component that was unavailable for a part of the time has the quality ``"unavailable"`` and an energy.
        """
        joules = self.joules.get(component, 0.0)
        return None if self.quality.get(component) == "unavailable" and not joules else joules / JOULES_PER_KWH

    @property
    def is_measured(self) -> bool:
        """Whether every component was measured by a sensor while it was metered."""
        metered = [quality for name, quality in self.quality.items() if name != UNMETERED]
        return bool(metered) and all(quality == "measured" for quality in metered)

    def grams(self) -> float | None:
        """Return the emissions in gCO2e.

        None if no intensity was known, or if signals of two kinds were used: their emissions do not add up.
        """
        return next(iter(self.gco2e.values())) if len(self.gco2e) == 1 else None

    def note_quality(self, component: str, quality: str) -> None:
        """Keep the worst quality of a component."""
        component = bounded(self.quality, component)
        self.quality[component] = max(self.quality.get(component, "measured"), quality, key=_WORSE.index)

    def add_emissions(self, joules: float, intensity: float | None, origin: Origin | None) -> None:
        """Add the emissions of ``joules`` (after PUE) at ``intensity`` gCO2e/kWh, or count them as unpriced."""
        if intensity is None or origin is None:
            self.unpriced_joules += joules
            return
        grams, place = joules / JOULES_PER_KWH * intensity, origin.place
        self.gco2e[bounded(self.gco2e, place.kind)] += grams
        source = place.kind, place.source, origin.quality
        if source not in self.gco2e_by_source and len(self.gco2e_by_source) >= _MAX_NAMES:
            source = place.kind, "other", ""
        self.gco2e_by_source[source] += grams


def bounded(known: Mapping[str, object], name: str) -> str:
    """Return the name of a new or known part of a total; ``"other"`` if there are too many of them."""
    return name if name in known or len(known) < _MAX_NAMES else "other"


def sum_totals(fits: Mapping[int | None, Totals]) -> Totals:
    """Return the sums over the fits of a run; its time is from the first start to the last event of any fit."""
    between = sum(totals.between_joules for totals in fits.values())
    own = [totals for number, totals in fits.items() if number is not None]
    if len(own) == 1:  # nearly always
        return replace(own[0], between_joules=between)
    found = Totals(between_joules=between)
    for totals in own:
        for name in ("joules", "joules_by_state", "joules_by_phase", "gco2e", "gco2e_by_source", "seconds_by_state"):
            for key, value in getattr(totals, name).items():
                getattr(found, name)[key] += value
        for component, quality in totals.quality.items():
            found.note_quality(component, quality)
        for number, node in totals.by_node.items():
            seen = found.by_node[number]
            for name, value in asdict(node).items():
                setattr(seen, name, getattr(seen, name) + value)
        found.unpriced_joules += totals.unpriced_joules
        for place, recorded in totals.intensities.items():
            found.intensities[place].join(recorded)
        found.exits += totals.exits
        found.exit_joules += totals.exit_joules
        found.attempts = max(found.attempts, totals.attempts)
        found.nodes = max(found.nodes, totals.nodes)
        found.segments += totals.segments
        if totals.first_start is not None:
            found.first_start = min(totals.first_start, found.first_start or totals.first_start)
        if totals.last_time is not None:
            found.last_time = max(totals.last_time, found.last_time or totals.last_time)
        if totals.out_since is not None:
            found.out_since = max(totals.out_since, found.out_since or totals.out_since)
    return found
