"""Totals of a ledger: energy, emissions and time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import NamedTuple

from lightning_green.ledger.events import BetweenFits, Event, Finished, Paused, Started, StateEvent
from lightning_green.ledger.intensity_timeline import IntensityInterval, IntensityTimeline
from lightning_green.ledger.measurement import Measurement
from lightning_green.utilities.units import JOULES_PER_KWH

PHASES = ("startup", "training", "validation", "checkpoint", "data_wait", "held", "restart")
"""Phases of a fit that energy is accounted to; ``data_wait`` is the part of the training that waits for a batch."""

# Phases that a run without pauses goes through as well.
_WORK_PHASES = ("startup", "training", "validation", "checkpoint")
_MAX_SEGMENTS = 50_000
"""Number of segments that are kept one by one: nine days, one every 15 s. Then neighbors are joined."""
_MAX_NAMES = 100
"""Number of components, states, phases or kinds that are kept apart."""
_WORSE = ("measured", "modelled", "unavailable")


class Segment(NamedTuple):
    """Work that a node did from ``start`` to ``end`` (seconds since the epoch), at full power or a throttle level."""

    start: float
    end: float
    joules: float
    power: float
    speed: float
    attempt: int = 1
    node: int = 0


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
        joules_by_state: Energy by state: running, throttled, held.
        joules_by_phase: Energy by phase, one of ``PHASES``. The energy of waiting for data is the share of the time
            spent waiting at the mean power of the training: an upper bound, because a waiting device draws less.
        gco2e: Emissions by kind of signal in gCO2e.
        unpriced_joules: Energy (after PUE) whose intensity is unknown.
        between_joules: Energy between two fits of a process in J; it is in no other sum, and 0 for a single fit.
        seconds_by_state: Time by state in seconds. ``"out"`` is the time between a planned exit and the next start,
            ``"stopped"`` the time between any other end and the next start.
        exits: Planned exits.
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
    unpriced_joules: float = 0.0
    between_joules: float = 0.0
    seconds_by_state: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    exits: int = 0
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
        """Hours paused in process or exited."""
        return (self.seconds_by_state["held"] + self.seconds_by_state["out"]) / 3600.0

    @property
    def elapsed_hours(self) -> float:
        """Hours since the first start."""
        if self.first_start is None or self.last_time is None:
            return 0.0
        return (self.last_time - self.first_start) / 3600.0

    @property
    def is_measured(self) -> bool:
        """Whether every component was measured by a sensor."""
        return bool(self.quality) and all(quality == "measured" for quality in self.quality.values())

    def grams(self) -> float | None:
        """Return the emissions in gCO2e.

        None if no intensity was known, or if signals of two kinds were used: their emissions do not add up.
        """
        return next(iter(self.gco2e.values())) if len(self.gco2e) == 1 else None

    def note_quality(self, component: str, quality: str) -> None:
        """Keep the worst quality of a component."""
        component = bounded(self.quality, component)
        self.quality[component] = max(self.quality.get(component, "measured"), quality, key=_WORSE.index)

    def add_emissions(self, joules: float, intensity: float | None, kind: str) -> None:
        """Add the emissions of ``joules`` (after PUE) at ``intensity`` gCO2e/kWh, or count them as unpriced."""
        if intensity is None:
            self.unpriced_joules += joules
        else:
            self.gco2e[bounded(self.gco2e, kind)] += joules / JOULES_PER_KWH * intensity


def bounded(known: Mapping[str, object], name: str) -> str:
    """Return the name of a new or known part of a total; ``"other"`` if there are too many of them."""
    return name if name in known or len(known) < _MAX_NAMES else "other"


def _join_neighbors(segments: list[Segment]) -> list[Segment]:
    """Join pairs of neighbors of a node at the same throttle level, which halves the resolution in time."""
    found: list[Segment] = []
    open_pairs: dict[int, int] = {}  # position of the last segment of each node that may be joined
    for segment in segments:
        position = open_pairs.pop(segment.node, None)
        if position is not None:
            last = found[position]
            if last.end == segment.start and last[3:] == segment[3:]:
                found[position] = last._replace(end=segment.end, joules=last.joules + segment.joules)
                continue
        open_pairs[segment.node] = len(found)
        found.append(segment)
    return found


class Account:
    """Adds the events of one fit to its totals.

    Events of different nodes may come in any order within one start.

    Attributes:
        totals: The totals so far.

    """

    def __init__(self) -> None:
        self.totals = Totals()
        self._last: dict[int, Event] = {}
        self._exited = False
        self._active_time: float | None = None
        self._first_attempt: int | None = None
        self._timeline, self._timeline_attempt = IntensityTimeline(), 0
        self._unsettled: list[tuple[float, float, float]] = []
        self._join_from = 0

    def add(self, event: Event) -> None:
        """Add the next event."""
        if not event.time_utc:  # an event of another version
            return
        totals, at = self.totals, event.timestamp
        if isinstance(event, BetweenFits):
            totals.between_joules += event.between_joules
            return
        if isinstance(event, Started) and not event.node_rank:
            self._start(event, at)
        elif isinstance(event, Paused) and not event.node_rank:
            totals.exits += 1
            self._exited = True
        if event.measured is not None:
            if event.attempt != self._timeline_attempt:
                self.settle()  # with the intensities of the previous start
                self._timeline, self._timeline_attempt = IntensityTimeline(), event.attempt
            self._interval(event, event.measured, at, self._last.get(event.node_rank))
            self._last[event.node_rank] = event
        restored = isinstance(event, Finished) and event.again  # the fit ended when it finished
        if event.node_rank == 0 and not restored:
            totals.last_time = at if totals.last_time is None else max(totals.last_time, at)
            # the supervisor's decisions are made while nothing runs
            if event.measured is not None or isinstance(event, StateEvent):
                self._active_time = totals.last_time

    def settle(self) -> None:
        """Account the energy of other nodes since the last event of rank 0 at the last known intensity."""
        self._settle_until(float("inf"))

    def _start(self, event: Started, at: float) -> None:
        totals, began = self.totals, at - event.startup_s
        if totals.first_start is None:
            totals.first_start, self._first_attempt = began, event.attempt
        elif self._active_time is not None and event.attempt > totals.attempts:
            totals.seconds_by_state["out" if self._exited else "stopped"] += max(0.0, began - self._active_time)
        self._exited = False
        totals.attempts = max(totals.attempts, event.attempt)
        totals.nodes = event.nodes or 1

    def _interval(self, event: Event, measured: Measurement, at: float, previous: Event | None) -> None:
        """Add the time and the energy since the previous event of the node, in the state that it was in."""
        totals, before = self.totals, None if previous is None else previous.measured
        if previous is not None and before is not None and previous.attempt == event.attempt:
            start, state, phase = previous.timestamp, previous.state or "running", previous.phase or "training"
            power, speed, waited_before = before.power, before.speed, before.data_wait_s
        else:
            before = None
            start = at - (event.startup_s if isinstance(event, Started) else 0.0)
            restarts = self._first_attempt is not None and event.attempt > self._first_attempt
            state, phase = "running", "restart" if restarts else "startup"
            power = speed = 1.0
            waited_before = 0.0
        spent = 0.0
        for component, energy in measured.joules.items():
            known = None if before is None else before.joules.get(component)
            joules = max(0.0, energy.joules - (0.0 if known is None else known.joules))
            totals.joules[bounded(totals.joules, component)] += joules
            totals.note_quality(component, energy.quality)
            spent += joules
        state, phase = bounded(totals.joules_by_state, state), bounded(totals.joules_by_phase, phase)
        totals.joules_by_state[state] += spent
        waited = max(0.0, measured.data_wait_s - waited_before)
        share = min(1.0, waited / (at - start)) if phase == "training" and at > start else 0.0
        totals.joules_by_phase[phase] += spent * (1.0 - share)
        if share:
            totals.joules_by_phase["data_wait"] += spent * share
        self._add_to_node(event, measured, Segment(start, at, spent, power, speed), state, phase)

    def _add_to_node(self, event: Event, measured: Measurement, spent: Segment, state: str, phase: str) -> None:
        """Add what is counted for each node: power, emissions, work; and the time of the first node."""
        totals, node = self.totals, self.totals.by_node[event.node_rank]
        seconds = max(0.0, spent.end - spent.start)
        node.joules += spent.joules
        if state == "held":
            node.held_seconds += seconds
            node.held_joules += spent.joules
        elif phase == "training":
            node.training_seconds += seconds
            node.training_full_joules += spent.joules / spent.power
        facility = spent.joules * measured.pue
        if event.node_rank == 0:
            totals.seconds_by_state[state] += seconds
            known = measured.intensity
            value, kind = (None, "") if known is None else (known.value, known.kind)
            totals.add_emissions(facility, value, kind)
            self._timeline.add(IntensityInterval(spent.start, spent.end, value, kind))
            self._settle_until(self._timeline.end)
        elif facility > 0.0:
            self._unsettled.append((spent.start, spent.end, facility))
            self._settle_until(self._timeline.end)
        if phase in _WORK_PHASES and state in ("running", "throttled") and (spent.joules > 0.0 or seconds > 0.0):
            totals.segments.append(spent._replace(joules=facility, attempt=event.attempt, node=event.node_rank))
            if len(totals.segments) > max(_MAX_SEGMENTS, self._join_from):
                totals.segments[:] = _join_neighbors(totals.segments)
                self._join_from = 2 * len(totals.segments)  # those of different levels are not joined

    def _settle_until(self, limit: float) -> None:
        if limit == float("-inf"):  # on a node that does not read the grid
            return
        due = [one for one in self._unsettled if one[1] <= limit]
        if due:
            self._unsettled = [one for one in self._unsettled if one[1] > limit]
        for start, end, facility in due:
            for share, value, kind in self._timeline.shares(start, end):
                self.totals.add_emissions(facility * share, value, kind)


FitAccounts = dict[int | None, Account]
"""The account of each fit by its number; under None, the energy between fits."""


def account_by_fit(events: Iterable[Event], accounts: FitAccounts | None = None) -> FitAccounts:
    """Return the account of each fit of a run.

    Args:
        events: Events of the run's ledger, in order.
        accounts: Accounts of earlier events, which are continued.

    """
    found: FitAccounts = {} if accounts is None else accounts
    for event in events:
        add_to_account(found, event)
    return found


def add_to_account(accounts: FitAccounts, event: Event) -> None:
    """Add the next event of a run to the account of its fit."""
    number = event.accounted_fit
    if number not in accounts:
        accounts[number] = Account()
    accounts[number].add(event)


def total(events: Iterable[Event]) -> Totals:
    """Return the totals of a ledger's events: the sums over the fits of the run.

    Examples:
        ```python
        totals = total(read_ledger(Path("lightning_green/train-1a2b3c4d")))
        print(totals.kwh, totals.grams())
        ```

    """
    accounts = account_by_fit(events)
    for account in accounts.values():
        account.settle()
    return sum_totals({number: account.totals for number, account in accounts.items()})


def sum_totals(fits: Mapping[int | None, Totals]) -> Totals:
    """Return the sums over the fits of a run; its time is from the first start to the last event of any fit."""
    between = sum(totals.between_joules for totals in fits.values())
    own = [totals for number, totals in fits.items() if number is not None]
    if len(own) == 1:  # nearly always
        return replace(own[0], between_joules=between)
    found = Totals(between_joules=between)
    for totals in own:
        for name in ("joules", "joules_by_state", "joules_by_phase", "gco2e", "seconds_by_state"):
            for key, value in getattr(totals, name).items():
                getattr(found, name)[key] += value
        for component, quality in totals.quality.items():
            found.note_quality(component, quality)
        for number, node in totals.by_node.items():
            seen = found.by_node[number]
            for name, value in asdict(node).items():
                setattr(seen, name, getattr(seen, name) + value)
        found.unpriced_joules += totals.unpriced_joules
        found.exits += totals.exits
        found.attempts = max(found.attempts, totals.attempts)
        found.nodes = max(found.nodes, totals.nodes)
        found.segments += totals.segments
        if totals.first_start is not None:
            found.first_start = min(totals.first_start, found.first_start or totals.first_start)
        if totals.last_time is not None:
            found.last_time = max(totals.last_time, found.last_time or totals.last_time)
    return found


def energy_kwh(totals: Totals, phase: str = "training", since_last: float = 0.0) -> dict[str, float]:
    """Return the energy in kWh by its names in the logs: in total, by component, and by phase.

    Args:
        totals: Totals up to the last event.
        phase: Phase that the fit is in.
        since_last: Energy since that event in J; it is in the total and in the phase, not in the components.

    """
    found = {"energy/kwh": sum(totals.joules.values()) + since_last}
    found.update({f"energy/{component}_kwh": joules for component, joules in totals.joules.items()})
    found.update({f"energy/{name}_kwh": totals.joules_by_phase.get(name, 0.0) for name in PHASES})
    found[f"energy/{phase}_kwh"] += since_last
    return {name: joules / JOULES_PER_KWH for name, joules in found.items()}


def full_power(totals: Totals) -> float | None:
    """Return the mean power of the training at full power in W, of all nodes.

    None if less than a second of training is recorded. A node without events is assumed to draw the mean of the others.
    """
    watts = [
        node.training_full_joules / node.training_seconds
        for number, node in totals.by_node.items()
        if number < totals.nodes and node.training_seconds >= 1.0
    ]
    return fmean(watts) * totals.nodes if sum(watts) > 0.0 else None


def measured_hold_power(totals: Totals) -> float | None:
    """Return the power while paused in process as a fraction of full power, if sensors measured both.

    None if a part of the power is modeled, or if either lasted less than a minute.
    """
    full = _measured_full_power(totals)
    watts = [
        node.held_joules / node.held_seconds
        for number, node in totals.by_node.items()
        if number < totals.nodes and node.held_seconds > 0.0
    ]
    if full is None or totals.seconds_by_state["held"] < 60.0 or not watts:
        return None
    return min(1.0, max(0.0, fmean(watts) * totals.nodes / full))


def measured_resume_hours(totals: Totals) -> float | None:
    """Return the energy of one exit and resume in hours at full power, if sensors measured at least one.

    It is the energy of the restarts and of the checkpoints taken in order to exit, divided by the number of exits.
    """
    full = _measured_full_power(totals)
    if full is None or totals.exits == 0 or totals.attempts < 2:
        return None
    return totals.joules_by_phase["restart"] / full / 3600.0 / totals.exits


def _measured_full_power(totals: Totals) -> float | None:
    enough = totals.is_measured and totals.by_node[0].training_seconds >= 60.0
    return full_power(totals) if enough else None
