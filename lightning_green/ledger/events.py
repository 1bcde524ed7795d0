"""The events of a ledger: one frozen dataclass for each.

``event.py`` has their base with the header, ``state_events.py`` those of the life of a fit, and this file all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from lightning_green.ledger.event import LEDGER_VERSION, Event, StateEvent, UnknownEvent
from lightning_green.ledger.state_events import Failed, Finished, Interrupted, Paused, Started

__all__ = [
    "LEDGER_VERSION",
    "AllocationKept",
    "BetweenFits",
    "BudgetChecked",
    "CheckpointFailed",
    "CheckpointSaved",
    "Decision",
    "DevicesIdle",
    "Ended",
    "Event",
    "Failed",
    "Finished",
    "GridChanged",
    "HistoryMissing",
    "Interrupted",
    "MeterProblem",
    "NonfiniteLoss",
    "Paused",
    "PhaseChanged",
    "PrecisionFallback",
    "Sample",
    "Started",
    "StateChanged",
    "StateEvent",
    "UnknownEvent",
    "Validated",
    "Warned",
]


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
