"""The events of a ledger: one frozen dataclass for each, and its form as JSON.

An event holds a header (when, where and in which attempt it was written), the state of the fit, the energy measured up
to that moment, and the fields of its own class. Readers keep what they do not know: an event of an unknown name is an
``UnknownEvent``, and unknown fields are in ``extra``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from lightning_green.ledger.event_fields import own_fields
from lightning_green.ledger.measurement import Measurement

LEDGER_VERSION = 2
"""Since version 2 each fit has a meter of its own, whose joules start at 0."""

_HEADER = ("v", "seq", "time_utc", "mono_s", "node", "pid", "attempt")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a ledger.

    Args:
        seq: Number of the event in the ledger of its node, from 1.
        time_utc: Time of the run's clock (ISO 8601, UTC).
        mono_s: Monotonic seconds of the run's clock.
        node: Name of the node.
        pid: Process id.
        attempt: Start of the run that the event belongs to, from 1.
        v: Version of the ledger.
        phase: Phase of the fit, for example ``"training"``; None if the event was not written by a training process.
        state: ``"running"``, ``"throttled"``, ``"held"`` or ``"out"``.
        measured: Energy up to the event, or None.
        global_step: Optimizer steps done, or None.
        fit: Number of the fit within its run; None if the event belongs to no fit.
        reason: One sentence for people.
        node_rank: Number of the node; 0 is the node of rank 0.
        extra: Fields that this version does not know.

    """

    name: ClassVar[str]

    seq: int = 0
    time_utc: str = ""
    mono_s: float = 0.0
    node: str = ""
    pid: int = 0
    attempt: int = 0
    v: int = LEDGER_VERSION
    phase: str | None = None
    state: str | None = None
    measured: Measurement | None = None
    global_step: int | None = None
    fit: int | None = 0
    reason: str = ""
    node_rank: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def time(self) -> datetime:
        """The time of the run's clock."""
        return datetime.fromisoformat(self.time_utc)

    @property
    def timestamp(self) -> float:
        """The time of the run's clock in seconds since the epoch."""
        return self.time.timestamp()

    @property
    def accounted_fit(self) -> int | None:
        """Number of the fit that the energy belongs to; None if it belongs to no fit.

        Before version 2 the meter counted over all fits of a process, so they are one.
        """
        return self.fit if self.fit is None or self.v >= LEDGER_VERSION else 0

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON; fields that do not apply are left out."""
        record: dict[str, Any] = {name: getattr(self, name) for name in _HEADER}
        record["event"] = self._json_name()
        for name in ("phase", "state"):
            if getattr(self, name) is not None:
                record[name] = getattr(self, name)
        if self.measured is not None:
            record |= self.measured.to_json()
        if self.global_step is not None:
            record["global_step"] = self.global_step
        record |= {"fit": self.fit, "reason": self.reason}
        if self.node_rank:
            record["node_rank"] = self.node_rank
        for name, (_, encode) in own_fields(type(self), Event).items():
            value = getattr(self, name)
            if value is not None:
                record[name] = encode(value)
        return {**record, **self.extra}

    def _json_name(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class StateEvent(Event):
    """An event after which a fit is in another state of its life.

    On other nodes it is written as ``node_<name>``: only the node of rank 0 decides about the state of a fit.
    """

    def _json_name(self) -> str:
        return f"node_{self.name}" if self.node_rank else self.name


@dataclass(frozen=True, kw_only=True)
class Started(StateEvent):
    """The training of a fit has started in a process.

    Args:
        startup_s: Seconds from the first measurement to this event.
        meter: Description of the meter.
        nodes: Number of nodes; None for one.
        restored: What the fit was continued from, or None.
        script: Command line of the process.
        signal: Digest of the spec of the grid signal, which distinguishes signals of one name; None without one.
        away: Intensities between the last event of the fit and this start, as ``series_record`` writes them, or None.

    """

    name: ClassVar[str] = "started"
    startup_s: float = 0.0
    meter: str = ""
    nodes: int | None = None
    restored: str | None = None
    script: list[str] | None = None
    signal: str | None = None
    away: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Finished(StateEvent):
    """A fit has finished.

    Args:
        again: True if it had finished in an earlier process and was restored in this one.

    """

    name: ClassVar[str] = "finished"
    again: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Paused(StateEvent):
    """A fit has exited until a planned time.

    Args:
        until: Planned time of the next start, or None.
        job: The planner's job as JSON, from which the supervisor plans again.
        grid: Spec of the grid signal, or None.
        seconds_per_batch: Mean seconds of a training batch.
        seconds_per_validation: Mean seconds of a validation.
        saving: Expected saving as a fraction of run-now emissions.
        startup_seconds: Time from the start of the command to the first step of this process.
        idle_watts: Idle power of the devices, of all nodes, which they draw as long as they stay allocated.
        allocation: What keeps them allocated until the next start, such as ``"SLURM job 7"``; None if the exit was
            meant to release them.
        remedy: What has to be done before the next start, if no time is planned; None otherwise.

    """

    name: ClassVar[str] = "paused"
    until: datetime | None = None
    job: Mapping[str, Any] | None = None
    grid: Mapping[str, Any] | None = None
    seconds_per_batch: float | None = None
    seconds_per_validation: float | None = None
    saving: float | None = None
    startup_seconds: float | None = None
    idle_watts: float | None = None
    allocation: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True)
class Interrupted(StateEvent):
    """A signal has stopped a fit.

    Args:
        signal: Name of the signal, for example ``"SIGTERM"``.

    """

    name: ClassVar[str] = "interrupted"
    signal: str = ""


@dataclass(frozen=True, kw_only=True)
class Failed(StateEvent):
    """An exception has ended a fit.

    Args:
        traceback: Digest of the traceback, to recognize the same failure.
        thread: Name of the thread; None for the main thread.

    """

    name: ClassVar[str] = "failed"
    traceback: str = ""
    thread: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ended(Event):
    """A process of the run has ended without an exception."""

    name: ClassVar[str] = "ended"


@dataclass(frozen=True, kw_only=True)
class BetweenFits(Event):
    """Energy between two fits of a process.

    Args:
        between_joules: The energy in J.

    """

    name: ClassVar[str] = "between_fits"
    between_joules: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DevicesIdle(Event):
    """The devices have stayed allocated, and idle, between a planned exit and the start after it.

    Args:
        idle_joules: Their energy in J, which is modeled.
        since: Time of the exit.
        until: Time of the start.
        idle_intensity: Mean carbon intensity of that time, as ``Intensity.to_json`` writes it, or None.
        idle_pue: Mean PUE of that time; None if it is that of the event.

    """

    name: ClassVar[str] = "devices_idle"
    idle_joules: float = 0.0
    since: datetime | None = None
    until: datetime | None = None
    idle_intensity: Mapping[str, Any] | None = None
    idle_pue: float | None = None

    @property
    def pue(self) -> float:
        """Mean PUE of the time in which the devices were idle."""
        recorded = self.measured.pue if self.measured is not None else 1.0
        return recorded if self.idle_pue is None or self.idle_pue < 0.0 else self.idle_pue


@dataclass(frozen=True, kw_only=True)
class AllocationKept(Event):
    """The devices have stayed allocated after a planned exit, because their release was refused.

    Args:
        allocation: What keeps them allocated, such as ``"SLURM job 7"``.
        since: Begin of that time.
        until: End of that time, as far as it is known.

    """

    name: ClassVar[str] = "allocation_kept"
    allocation: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Sample(Event):
    """The energy up to now."""

    name: ClassVar[str] = "sample"


@dataclass(frozen=True, kw_only=True)
class PhaseChanged(Event):
    """The fit has entered another phase."""

    name: ClassVar[str] = "phase"


@dataclass(frozen=True, kw_only=True)
class StateChanged(Event):
    """The fit has entered another state: running, throttled or held.

    Args:
        until: Planned end of a hold.
        level: Throttle level, for example ``"0.78:0.9"`` (power:speed).

    """

    name: ClassVar[str] = "state"
    until: datetime | None = None
    level: str | None = None


@dataclass(frozen=True, kw_only=True)
class Decision(Event):
    """The planner has decided.

    Args:
        action: ``"run"``, ``"hold"`` or ``"exit"``.
        until: End of the action.
        level: Throttle level, or None.
        work_hours: Remaining work in hours at full power.
        least_work_hours: The same if ``EarlyStopping`` ends the training as early as it may, or None.
        saving: Expected saving as a fraction of run-now emissions.
        saving_std: Standard deviation of ``saving``.
        expected_end: Expected end of the training.
        late_hours: Hours after the deadline at which the training ends.
        deadline: The deadline, or None.
        forecast: The intensities that the plan is based on, as ``series_record`` writes them; None if they were
            recorded less than an hour before.
        job: The planner's job as JSON, in the first decision of a process; else None.
        grid: Spec of the grid signal, in the same decision.

    """

    name: ClassVar[str] = "decision"
    action: str = ""
    until: datetime | None = None
    level: str | None = None
    work_hours: float | None = None
    least_work_hours: float | None = None
    saving: float | None = None
    saving_std: float | None = None
    expected_end: datetime | None = None
    late_hours: float | None = None
    deadline: datetime | None = None
    forecast: Mapping[str, Any] | None = None
    job: Mapping[str, Any] | None = None
    grid: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Validated(Event):
    """A validation of the training has ended.

    Args:
        metrics: The numbers that it has logged, by name.

    """

    name: ClassVar[str] = "validation"
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """A training state has been saved.

    Args:
        path: File name.
        position: Epoch and batch.

    """

    name: ClassVar[str] = "checkpoint"
    path: str = ""
    position: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointFailed(Event):
    """A training state could not be saved."""

    name: ClassVar[str] = "checkpoint_failed"


@dataclass(frozen=True, kw_only=True)
class GridChanged(Event):
    """A source of carbon intensity has failed, recovered or been replaced."""

    name: ClassVar[str] = "grid"


@dataclass(frozen=True, kw_only=True)
class MeterProblem(Event):
    """A source of energy has failed."""

    name: ClassVar[str] = "meter"


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """The user has been warned."""

    name: ClassVar[str] = "warning"


@dataclass(frozen=True, kw_only=True)
class BudgetChecked(Event):
    """The use of a budget at a start, at the warning, when a limit is reached, and at the end.

    Args:
        action: ``"warn"``, ``"stop"``, ``"pause"`` or ``"throttle"``; None if nothing is done.
        limits: Limits by unit: ``kwh``, ``gco2e``, ``cost``.
        used: Use of all runs by unit, of the units that have a limit.
        runs: Number of runs that share the budget.
        directory: Directory that they share; None for the budget of one run.
        priced: ``cost`` of this run and its energy after PUE with a known price (``priced_kwh``) and without
            (``unknown_price_kwh``); empty if no price is known.
        prices: Electricity prices at that time, as ``PriceSeries.to_json`` writes them; None if there are none.

    """

    name: ClassVar[str] = "budget"
    action: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    used: Mapping[str, Any] = field(default_factory=dict)
    runs: int = 1
    directory: str | None = None
    priced: Mapping[str, Any] = field(default_factory=dict)
    prices: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class PrecisionFallback(Event):
    """Training continues in another precision after repeated overflows.

    Args:
        before: Lightning's name of the precision until the event.
        after: Lightning's name of the precision from the event on.
        skipped_steps: Optimizer steps skipped so far.

    """

    name: ClassVar[str] = "precision_fallback"
    before: str = ""
    after: str = ""
    skipped_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class NonfiniteLoss(Event):
    """A training loss was infinite or NaN. The reason contains the first module with a non-finite output."""

    name: ClassVar[str] = "nonfinite_loss"


@dataclass(frozen=True, kw_only=True)
class HistoryMissing(Event):
    """A part of the ledger has been lost."""

    name: ClassVar[str] = "history_missing"


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(Event):
    """An event that another version has written.

    Args:
        kind: Its name.

    """

    name: ClassVar[str] = ""
    kind: str

    def _json_name(self) -> str:
        return self.kind

    def to_json(self) -> dict[str, Any]:
        """Return the event as it was read."""
        return dict(self.extra)
