"""From the ledger to totals: energy, emissions, time, and what the run would have emitted had it not waited."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

JOULES_PER_KWH = 3.6e6

PHASES = ("startup", "training", "validation", "checkpoint", "data_wait", "held", "restart")
"""What a run spends its energy on; ``data_wait`` is the part of the training in which it waited for a batch."""

# Phases that the same run would also have gone through had it never waited.
_WORK_PHASES = ("startup", "training", "validation", "checkpoint")


class Segment(NamedTuple):
    """Work that was done from ``start`` to ``end`` (seconds since the epoch), at full power or a throttle level."""

    start: float
    end: float
    joules: float
    power: float
    speed: float


@dataclass
class Totals:
    """What a run has used and done since its first start, over every restart.

    Emissions are the sum over the ledger's intervals of energy x PUE x the mean intensity of the interval.

    Attributes:
        joules: Energy by component, in joules, as measured at the devices (before PUE).
        quality: The worst quality that each component was measured with.
        joules_by_state: Energy by state: running, throttled, held.
        joules_by_phase: Energy by phase, one of ``PHASES``. The energy of waiting for data is the share of the time
            that was waited, at the mean power of the training: an upper bound, because a device that waits draws less.
        gco2e: Emissions by kind of signal, in gCO2e.
        unpriced_joules: Energy (after PUE) for which no intensity was known.
        seconds_by_state: Time by state, in seconds; "out" is the time between a planned exit and the next start, and
            "stopped" that between any other end and the next start, which nobody planned.
        exits: Planned exits.
        attempts: Starts of the run.
        first_start: Seconds since the epoch at which the run first started, or None.
        segments: The work that was done, in order.
        training_seconds: Time in the training phase, in seconds.
        training_full_joules: What the training phase would have used in that time at full power, in joules.

    """

    joules: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    quality: dict[str, str] = field(default_factory=dict)
    joules_by_state: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    joules_by_phase: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    gco2e: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    unpriced_joules: float = 0.0
    seconds_by_state: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    training_seconds: float = 0.0
    training_full_joules: float = 0.0
    exits: int = 0
    attempts: int = 0
    first_start: float | None = None
    last_time: float | None = None
    segments: list[Segment] = field(default_factory=list)
    _last: dict[str, dict[str, Any]] = field(default_factory=dict)
    _left: bool = False

    def add(self, record: dict[str, Any]) -> None:
        """Take in the next event of the ledger."""
        at = datetime.fromisoformat(record["time_utc"]).timestamp()
        event, node = record["event"], record["node"]
        if event == "started":
            self._start(record, at)
        elif event == "paused":
            self.exits += 1
            self._left = True
        if "joules" in record:
            self._interval(record, at, self._last.get(node))
            self._last[node] = record
        self.last_time = at if self.last_time is None else max(self.last_time, at)

    def _start(self, record: dict[str, Any], at: float) -> None:
        began = at - float(record.get("startup_s", 0.0))
        if self.first_start is None:
            self.first_start = began
        elif self.last_time is not None and record["attempt"] > self.attempts:
            self.seconds_by_state["out" if self._left else "stopped"] += max(0.0, began - self.last_time)
        self._left = False
        self.attempts = max(self.attempts, int(record["attempt"]))

    def _interval(self, record: dict[str, Any], at: float, previous: dict[str, Any] | None) -> None:
        continues = previous is not None and previous["attempt"] == record["attempt"]
        if continues and previous is not None:
            start = datetime.fromisoformat(previous["time_utc"]).timestamp()
            state, phase = previous["state"], previous["phase"]
            power, speed = previous.get("power", 1.0), previous.get("speed", 1.0)
        else:
            start = at - float(record.get("startup_s", 0.0))
            state, phase = "running", "startup" if record["attempt"] == 1 else "restart"
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
        if phase == "training" and state != "held":
            self.training_seconds += max(0.0, at - start)
            self.training_full_joules += spent / power
        self.seconds_by_state[state] += max(0.0, at - start)
        intensity = record.get("intensity")
        facility = spent * float(record.get("pue", 1.0))
        if intensity is not None:
            self.gco2e[intensity["kind"]] += facility / JOULES_PER_KWH * intensity["value"]
        else:
            self.unpriced_joules += facility
        if phase in _WORK_PHASES and state in ("running", "throttled") and (spent > 0.0 or at > start):
            self.segments.append(Segment(start, at, facility, power, speed))

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


def total(records: Iterable[dict[str, Any]]) -> Totals:
    """Return the totals of a ledger's events."""
    totals = Totals()
    for record in records:
        totals.add(record)
    return totals


def counterfactual_gco2e(totals: Totals, mean: Callable[[float, float], float | None]) -> float | None:
    """Return what the run would have emitted had it never waited, in gCO2e.

    The work that was done is moved, in its order and at full power, to start at the first start and to go on without a
    pause. Energy of holding, and of leaving and coming back, is left out: a run that does not wait has none.

    Args:
        totals: The run's totals.
        mean: Mean intensity in gCO2e/kWh between two times in seconds since the epoch, or None where it is unknown.

    Returns:
        Grams, or None where the intensity of a time is unknown or nothing was done.

    """
    if totals.first_start is None or not totals.segments:
        return None
    at, grams = totals.first_start, 0.0
    for segment in totals.segments:
        duration = (segment.end - segment.start) * segment.speed
        joules = segment.joules * segment.speed / segment.power
        intensity = mean(at, at + duration)
        if intensity is None:
            return None
        grams += joules / JOULES_PER_KWH * intensity
        at += duration
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
    """Return the mean power of the training at full power in W; None where less than a second of it is on record."""
    if totals.training_seconds < 1.0 or totals.training_full_joules <= 0.0:
        return None
    return totals.training_full_joules / totals.training_seconds


def measured_hold_power(totals: Totals) -> float | None:
    """Return the power while held as a fraction of the full power of the training, where a sensor saw both.

    None where a part of the power is only modelled, or either lasted less than a minute.
    """
    full, held = _measured_full_power(totals), totals.seconds_by_state["held"]
    if full is None or held < 60.0:
        return None
    return min(1.0, max(0.0, totals.joules_by_state["held"] / held / full))


def measured_resume_hours(totals: Totals) -> float | None:
    """Return the energy of one exit and return in hours at full power, where a sensor saw at least one.

    It is the energy of the restarts, with that of the checkpoints that were saved to leave, per exit.
    """
    full = _measured_full_power(totals)
    if full is None or totals.exits == 0 or totals.attempts < 2:
        return None
    return totals.joules_by_phase["restart"] / full / 3600.0 / totals.exits


def _measured_full_power(totals: Totals) -> float | None:
    return full_power(totals) if _is_measured(totals) and totals.training_seconds >= 60.0 else None


def _waited(record: dict[str, Any], previous: dict[str, Any] | None) -> float:
    """Return the seconds that were waited for data since the record before; the ledger counts them per attempt."""
    before = 0.0 if previous is None else float(previous.get("data_wait_s", 0.0))
    return max(0.0, float(record.get("data_wait_s", before)) - before)


def _is_measured(totals: Totals) -> bool:
    return bool(totals.quality) and all(quality == "measured" for quality in totals.quality.values())
