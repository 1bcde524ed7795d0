"""From the ledger to totals: energy, emissions, time, and what the run would have emitted had it not waited."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import datetime
from statistics import fmean
from typing import Any, NamedTuple

from lightning_green.ledger.intensity_timeline import Price, Prices
from lightning_green.ledger.ledger import STATE_EVENTS

log = logging.getLogger(__name__)

JOULES_PER_KWH = 3.6e6

PHASES = ("startup", "training", "validation", "checkpoint", "data_wait", "held", "restart")
"""What a run spends its energy on; ``data_wait`` is the part of the training in which it waited for a batch."""

# Fields of the totals that JSON takes as they are.
_SUMS = ("joules", "quality", "joules_by_state", "joules_by_phase", "gco2e", "seconds_by_state")
_NUMBERS = (
    "unpriced_joules", "between_joules", "exits", "attempts", "first_start", "last_time", "nodes", "_left", "_priced",
    "_active_time", "_first_attempt",
)  # fmt: skip

# Phases that the same run would also have gone through had it never waited.
_WORK_PHASES = ("startup", "training", "validation", "checkpoint")


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
class NodePower:
    """What the power of one node is worked out from, in joules and seconds.

    Args:
        training_seconds: Time in the training phase.
        training_full_joules: What the training phase would have used in that time at full power.
        held_seconds: Time held.
        held_joules: Energy of that time.

    """

    training_seconds: float = 0.0
    training_full_joules: float = 0.0
    held_seconds: float = 0.0
    held_joules: float = 0.0


@dataclass
class Totals:
    """What a fit has used and done since its first start, over every restart and on all of its nodes.

    :func:`sum_totals` returns those of a run: the sums over its fits.

    Emissions are the sum over the ledger's intervals of energy x PUE x the mean intensity of the interval. Energy is
    summed over nodes. Time counts once: it is that of the first node, where rank 0 runs. It alone reads the grid, so
    the energy of the other nodes is priced by the intensities on its record.

    Attributes:
        joules: Energy by component, in joules, as measured at the devices (before PUE).
        quality: The worst quality that each component was measured with.
        joules_by_state: Energy by state: running, throttled, held.
        joules_by_phase: Energy by phase, one of ``PHASES``. The energy of waiting for data is the share of the time
            that was waited, at the mean power of the training: an upper bound, because a device that waits draws less.
        gco2e: Emissions by kind of signal, in gCO2e.
        unpriced_joules: Energy (after PUE) for which no intensity was known.
        between_joules: Energy between two fits of a process, in joules; it is in no other sum, and 0 for a single fit.
        seconds_by_state: Time by state, in seconds; "out" is the time between a planned exit and the next start, and
            "stopped" that between any other end and the next start, which nobody planned.
        exits: Planned exits.
        attempts: Starts of the run.
        first_start: Seconds since the epoch at which the run first started, or None.
        segments: The work that was done, that of each node in order.
        nodes: How many nodes the run has since its last start.
        joules_by_node: Energy by number of the node, in joules.
        power_by_node: What the power of each node is worked out from.

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
    joules_by_node: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    power_by_node: dict[int, NodePower] = field(default_factory=lambda: defaultdict(NodePower))
    _last: dict[int, dict[str, Any]] = field(default_factory=dict)
    _left: bool = False
    _active_time: float | None = None
    _first_attempt: int | None = None
    _prices: Prices = field(default_factory=Prices, compare=False)
    _priced: int = 0
    _unsettled: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Take in the next event of the ledger; those of different nodes may come in any order within one start."""
        at = datetime.fromisoformat(record["time_utc"]).timestamp()
        event, node = record["event"], node_of(record)
        if event == "started":
            self._start(record, at)
        elif event == "paused":
            self.exits += 1
            self._left = True
        if "joules" in record:
            if record["attempt"] != self._priced:
                self.settle()  # with the intensities of the start before
                self._prices, self._priced = Prices(), record["attempt"]
            self._interval(record, at, self._last.get(node))
            self._last[node] = record
        if node == 0 and not record.get("again"):  # a restored fit ended when it finished
            self.last_time = at if self.last_time is None else max(self.last_time, at)
            if "joules" in record or event in STATE_EVENTS:  # the supervisor's decisions are made while nothing runs
                self._active_time = self.last_time

    def add_all(self, records: Iterable[dict[str, Any]]) -> None:
        """Take in events of a ledger; what no writer of this version wrote is left out, and told of."""
        left_out = []
        for record in records:
            try:
                self.add(record)
            except (KeyError, TypeError, ValueError, AttributeError):  # noqa: PERF203 - the next one may be whole
                left_out.append(record)
        if left_out:
            log.warning("%d events of the ledger are in no total, the first of them %s", len(left_out), left_out[0])

    def plain(self) -> dict[str, Any]:
        """Return the totals of a run with one node as JSON takes them."""
        return {
            **{name: getattr(self, name) for name in (*_SUMS, *_NUMBERS)},
            "segments": self.segments,
            "joules_of_node": self.joules_by_node.get(0),
            "power_of_node": astuple(self.power_by_node.get(0, NodePower())),
            "last": self._last.get(0),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Totals:
        """Return what :meth:`plain` was called on, but for the prices, which are for the energy of other nodes."""
        totals = cls(segments=[Segment(*one) for one in plain["segments"]])
        for name in _SUMS:
            getattr(totals, name).update(plain[name])
        for name in _NUMBERS:
            setattr(totals, name, plain[name])
        if plain["joules_of_node"] is not None:
            totals.joules_by_node[0] = plain["joules_of_node"]
            totals.power_by_node[0] = NodePower(*plain["power_of_node"])
        if plain["last"] is not None:
            totals._last[0] = plain["last"]
        return totals

    def _start(self, record: dict[str, Any], at: float) -> None:
        began = at - float(record.get("startup_s", 0.0))
        if self.first_start is None:
            self.first_start, self._first_attempt = began, int(record["attempt"])
        elif self._active_time is not None and record["attempt"] > self.attempts:
            self.seconds_by_state["out" if self._left else "stopped"] += max(0.0, began - self._active_time)
        self._left = False
        self.attempts = max(self.attempts, int(record["attempt"]))
        self.nodes = int(record.get("nodes", 1))

    def _interval(self, record: dict[str, Any], at: float, previous: dict[str, Any] | None) -> None:
        continues = previous is not None and previous["attempt"] == record["attempt"]
        if continues and previous is not None:
            start = datetime.fromisoformat(previous["time_utc"]).timestamp()
            state, phase = previous["state"], previous["phase"]
            power, speed = previous.get("power", 1.0), previous.get("speed", 1.0)
        else:
            start = at - float(record.get("startup_s", 0.0))
            restarts = self._first_attempt is not None and record["attempt"] > self._first_attempt
            state, phase = "running", "restart" if restarts else "startup"
            power, speed = 1.0, 1.0
        spent = 0.0
        for component, energy in record["joules"].items():
            before = previous["joules"].get(component, {}).get("value", 0.0) if continues and previous else 0.0
            spent_here = max(0.0, energy["value"] - before)
            self.joules[component] += spent_here
            self._note_quality(component, energy["quality"])
            spent += spent_here
        self.joules_by_state[state] += spent
        self._by_phase(phase, spent, at - start, _waited(record, previous if continues else None))
        self._by_node(node_of(record), record, Segment(start, at, spent, power, speed), state, phase)

    def _by_node(self, node: int, record: dict[str, Any], spent: Segment, state: str, phase: str) -> None:
        """Keep what is counted for each node: its power, its emissions, its work; and the time, for the first one."""
        seconds, seen = max(0.0, spent.end - spent.start), self.power_by_node[node]
        self.joules_by_node[node] += spent.joules
        if state == "held":
            seen.held_seconds += seconds
            seen.held_joules += spent.joules
        elif phase == "training":
            seen.training_seconds += seconds
            seen.training_full_joules += spent.joules / spent.power
        facility = spent.joules * float(record.get("pue", 1.0))
        if node == 0:
            self.seconds_by_state[state] += seconds
            intensity = record.get("intensity")
            value, kind = (None, "") if intensity is None else (intensity["value"], intensity["kind"])
            self._price(facility, value, kind)
            self._prices.add(Price(spent.start, spent.end, value, kind))
            self._settle_until(self._prices.end)
        elif facility > 0.0:
            self._unsettled.append((spent.start, spent.end, facility))
            self._settle_until(self._prices.end)
        if phase in _WORK_PHASES and state in ("running", "throttled") and (spent.joules > 0.0 or seconds > 0.0):
            self.segments.append(spent._replace(joules=facility, attempt=int(record["attempt"]), node=node))

    def settle(self) -> None:
        """Price what other nodes have used since the first one's last event by the last intensity that is known."""
        self._settle_until(float("inf"))

    def _settle_until(self, limit: float) -> None:
        if limit == float("-inf"):  # on a node that prices nothing
            return
        due = [one for one in self._unsettled if one[1] <= limit]
        if due:
            self._unsettled = [one for one in self._unsettled if one[1] > limit]
        for start, end, facility in due:
            for share, value, kind in self._prices.shares(start, end):
                self._price(facility * share, value, kind)

    def _price(self, facility: float, value: float | None, kind: str) -> None:
        if value is None:
            self.unpriced_joules += facility
        else:
            self.gco2e[kind] += facility / JOULES_PER_KWH * value

    def _by_phase(self, phase: str, joules: float, seconds: float, waited: float) -> None:
        share = min(1.0, waited / seconds) if phase == "training" and seconds > 0.0 else 0.0
        self.joules_by_phase[phase] += joules * (1.0 - share)
        if share:
            self.joules_by_phase["data_wait"] += joules * share

    def _note_quality(self, component: str, quality: str) -> None:
        order = ("measured", "modelled", "unavailable")
        known = self.quality.get(component, "measured")
        self.quality[component] = max(known, quality, key=order.index)

    @property
    def kwh(self) -> float:
        """Energy of all components in kWh."""
        return sum(self.joules.values()) / JOULES_PER_KWH

    @property
    def hours_waited(self) -> float:
        """Hours held in process or out."""
        return (self.seconds_by_state["held"] + self.seconds_by_state["out"]) / 3600.0

    @property
    def elapsed_hours(self) -> float:
        """Hours since the first start."""
        if self.first_start is None or self.last_time is None:
            return 0.0
        return (self.last_time - self.first_start) / 3600.0

    def grams(self) -> float | None:
        """Emissions of the one kind of signal that was used, in gCO2e.

        None where nothing was priced, or where signals of two kinds were: their grams do not add up.
        """
        return next(iter(self.gco2e.values())) if len(self.gco2e) == 1 else None


FitTotals = dict[int | None, Totals]


def total(records: Iterable[dict[str, Any]]) -> Totals:
    """Return the totals of a ledger's events: the sums over the fits of the run."""
    fits = total_by_fit(records)
    for totals in fits.values():
        totals.settle()
    return sum_totals(fits)


def total_by_fit(records: Iterable[dict[str, Any]], fits: FitTotals | None = None) -> FitTotals:
    """Return the totals of each fit of a run; under None, the energy between its fits.

    Args:
        records: Events of the run's ledger, in their order.
        fits: Totals of the events before these, which are added to.

    """
    found: FitTotals = {} if fits is None else fits
    parts: dict[int | None, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        parts[fit_of(record)].append(record)
    for number, part in parts.items():
        totals = found.setdefault(number, Totals())
        if number is None:
            totals.between_joules += sum(float(record.get("between_joules", 0.0)) for record in part)
        else:
            totals.add_all(part)
    return found


def sum_totals(fits: Mapping[int | None, Totals]) -> Totals:
    """Return the sums over the fits of a run; its time is that from the first start of any to the last event of any."""
    between = sum(totals.between_joules for totals in fits.values())
    own = [totals for number, totals in fits.items() if number is not None]
    if len(own) == 1:  # nearly always
        return replace(own[0], between_joules=between)
    found = Totals()
    for totals in fits.values():
        for name in ("joules", "joules_by_state", "joules_by_phase", "gco2e", "seconds_by_state", "joules_by_node"):
            for key, value in getattr(totals, name).items():
                getattr(found, name)[key] += value
        for component, quality in totals.quality.items():
            found._note_quality(component, quality)
        for node, power in totals.power_by_node.items():
            seen = found.power_by_node[node]
            for name, value in asdict(power).items():
                setattr(seen, name, getattr(seen, name) + value)
        found.unpriced_joules += totals.unpriced_joules
        found.between_joules += totals.between_joules
        found.exits += totals.exits
        found.attempts = max(found.attempts, totals.attempts)
        found.nodes = max(found.nodes, totals.nodes)
        found.segments += totals.segments
        if totals.first_start is not None:
            found.first_start = min(totals.first_start, found.first_start or totals.first_start)
        if totals.last_time is not None:
            found.last_time = max(totals.last_time, found.last_time or totals.last_time)
    return found


def fit_of(record: dict[str, Any]) -> int | None:
    """Return the number of the fit that an event's energy belongs to; None where it belongs to no fit.

    Up to version 1 of the ledger the meter counted over all fits of a process, so they are one.
    """
    number = record.get("fit", 0)
    if number is None or record.get("v", 1) < 2:
        return None if number is None else 0
    return int(number)


def node_of(record: dict[str, Any]) -> int:
    """Return the number of the node that wrote an event; 0 is that of rank 0, and of a run with one node."""
    return int(record.get("node_rank", 0))


def counterfactual_gco2e(totals: Totals, mean: Callable[[float, float], float | None]) -> float | None:
    """Return what the run would have emitted had it never waited, in gCO2e.

    The work that was done is moved, in its order and at full power, to start at the first start and to go on without a
    pause, on all nodes side by side. Energy of holding, and of leaving and coming back, is left out: a run that does
    not wait has none.

    Args:
        totals: The run's totals.
        mean: Mean intensity in gCO2e/kWh between two times in seconds since the epoch, or None where it is unknown.

    Returns:
        Grams, or None where the intensity of a time is unknown or nothing was done.

    """
    if totals.first_start is None or not totals.segments:
        return None
    began, grams = totals.first_start, 0.0
    ended: dict[int, float] = {}
    attempt = 0
    for segment in sorted(totals.segments, key=lambda one: one.attempt):  # each node's stay in their order
        if segment.attempt != attempt:  # the nodes start together, also those that were not there before
            attempt, began, ended = segment.attempt, max([began, *ended.values()]), {}
        at = ended.get(segment.node, began)
        duration = (segment.end - segment.start) * segment.speed
        joules = segment.joules * segment.speed / segment.power
        intensity = mean(at, at + duration)
        if intensity is None:
            return None
        grams += joules / JOULES_PER_KWH * intensity
        ended[segment.node] = at + duration
    return grams


def saving_percent(actual: float, counterfactual: float) -> float:
    """Return the saving against run-now in percent; negative where waiting cost more than it saved."""
    return 0.0 if counterfactual == 0.0 else 100.0 * (counterfactual - actual) / counterfactual


def energy_kwh(totals: Totals, phase: str = "training", since_last: float = 0.0) -> dict[str, float]:
    """Return the energy in kWh by its names in the logs: all of it, by component, and by phase.

    Args:
        totals: The run's totals, up to its last event.
        phase: The phase that the run is in.
        since_last: Energy since that event in joules; it is in the sum and in the phase, not in the components.

    """
    found = {"energy/kwh": sum(totals.joules.values()) + since_last}
    found.update({f"energy/{component}_kwh": joules for component, joules in totals.joules.items()})
    found.update({f"energy/{name}_kwh": totals.joules_by_phase.get(name, 0.0) for name in PHASES})
    found[f"energy/{phase}_kwh"] += since_last
    return {name: joules / JOULES_PER_KWH for name, joules in found.items()}


def full_power(totals: Totals) -> float | None:
    """Return the mean power of the training at full power in W; None where less than a second of it is on record.

    It is that of all nodes. One that has not been heard of yet is taken to draw what the others do.
    """
    watts = [
        seen.training_full_joules / seen.training_seconds
        for node, seen in totals.power_by_node.items()
        if node < totals.nodes and seen.training_seconds >= 1.0
    ]
    return fmean(watts) * totals.nodes if sum(watts) > 0.0 else None


def measured_hold_power(totals: Totals) -> float | None:
    """Return the power while held as a fraction of the full power of the training, where a sensor saw both.

    None where a part of the power is only modelled, or either lasted less than a minute.
    """
    full = _measured_full_power(totals)
    watts = [
        seen.held_joules / seen.held_seconds
        for node, seen in totals.power_by_node.items()
        if node < totals.nodes and seen.held_seconds > 0.0
    ]
    if full is None or totals.seconds_by_state["held"] < 60.0 or not watts:
        return None
    return min(1.0, max(0.0, fmean(watts) * totals.nodes / full))


def measured_resume_hours(totals: Totals) -> float | None:
    """Return the energy of one exit and return in hours at full power, where a sensor saw at least one.

    It is the energy of the restarts, with that of the checkpoints that were saved to leave, per exit.
    """
    full = _measured_full_power(totals)
    if full is None or totals.exits == 0 or totals.attempts < 2:
        return None
    return totals.joules_by_phase["restart"] / full / 3600.0 / totals.exits


def _measured_full_power(totals: Totals) -> float | None:
    return full_power(totals) if _is_measured(totals) and totals.power_by_node[0].training_seconds >= 60.0 else None


def _waited(record: dict[str, Any], previous: dict[str, Any] | None) -> float:
    """Return the seconds that were waited for data since the record before; the ledger counts them per attempt."""
    before = 0.0 if previous is None else float(previous.get("data_wait_s", 0.0))
    return max(0.0, float(record.get("data_wait_s", before)) - before)


def _is_measured(totals: Totals) -> bool:
    return bool(totals.quality) and all(quality == "measured" for quality in totals.quality.values())
