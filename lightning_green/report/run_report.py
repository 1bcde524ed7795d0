"""What a report contains: the figures and the curves of one run, read from its ledger."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lightning_green.ledger.account import FitAccounts, add_to_account
from lightning_green.ledger.baseline import run_now_baselines, run_now_curve
from lightning_green.ledger.events import (
    CheckpointFailed,
    Decision,
    Event,
    Failed,
    GridChanged,
    HistoryMissing,
    Interrupted,
    MeterProblem,
    Paused,
    Started,
    StateChanged,
    Validated,
    Warned,
)
from lightning_green.ledger.intensity_series import read_series
from lightning_green.ledger.ledger import iterate_ledger
from lightning_green.ledger.totals import PHASES, Totals, sum_totals
from lightning_green.report.series import IntensityCurve, PowerCurves, Step, thinned
from lightning_green.report.spans import Span, SpanBuilder
from lightning_green.utilities.text import printable
from lightning_green.utilities.units import JOULES_PER_KWH

MAX_ROWS = 500
"""Number of decisions, forecasts, validations or messages in a report; in the middle of more, some are left out."""

_MESSAGES = (Warned, GridChanged, MeterProblem, HistoryMissing, CheckpointFailed, Failed, Interrupted)
_DECISIONS = (Decision, Paused, StateChanged)


class Component(NamedTuple):
    """Energy of a component in kWh, None if it is unknown, and its quality."""

    name: str
    kwh: float | None
    quality: str


class Emissions(NamedTuple):
    """Emissions of one kind of signal.

    Attributes:
        kind: Kind of the signal, such as ``"average/lifecycle"``.
        grams: Emissions in gCO2e.
        run_now: Emissions of the run-now baseline in gCO2e, or None if they are unknown.
        saving_pct: Saving in percent; negative if waiting cost more than it saved; None if it is unknown.
        saving_std_pct: Standard deviation of the saving, or None.
        known_share: Fraction of the work that the saving applies to.
        actual_of_known: Emissions in gCO2e that compare with ``run_now``.

    """

    kind: str
    grams: float
    run_now: float | None = None
    saving_pct: float | None = None
    saving_std_pct: float | None = None
    known_share: float | None = None
    actual_of_known: float | None = None


class Moment(NamedTuple):
    """A decision or a message: its time, what it is, and one sentence."""

    time: datetime
    what: str
    text: str
    until: datetime | None = None
    step: int | None = None


class KnownForecast(NamedTuple):
    """The forecast that a decision was based on: its time in seconds since the epoch, and the intensities."""

    time: float
    values: list[tuple[float, float | None]]


class Validation(NamedTuple):
    """The metrics of one validation, and what had been used and emitted until then."""

    time: datetime
    step: int | None
    kwh: float
    grams: float | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class RunReport:
    """The figures and the curves of one run.

    Args:
        name: Name of the run directory.
        path: The run directory.
        script: Command line of the training, without secrets, or None.
        meter: Description of the meter.
        sources: Emissions in gCO2e by source of the intensity, with its quality.
        zone: Grid zone, or None.
        pue: Power usage effectiveness at the last event.
        start: First start, or None if the run never started.
        end: Last event, or None.
        ended_by: Name of the last event that changed the state of the run, such as ``"finished"``.
        components: Energy by component.
        phase_kwh: Energy by phase in kWh.
        state_hours: Hours by state.
        emissions: Emissions by kind of signal.
        unpriced_kwh: Energy whose intensity is unknown.
        hours_waited: Hours paused in process or exited.
        elapsed_hours: Hours from the first start to the last event.
        exits: Planned exits.
        attempts: Starts.
        nodes: Number of nodes.
        steps: Optimizer steps.
        deadline: The deadline, or None.
        spans: States over time.
        intensity: Carbon intensity over time in gCO2e/kWh.
        forecasts: The forecasts of the decisions.
        decisions: Decisions and changes of state.
        messages: Warnings and failures.
        emitted: Times in seconds since the epoch, and the gCO2e emitted until then.
        emitted_run_now: The same of the run-now baseline.
        power_times: Times of ``power`` in seconds since the epoch.
        power: Mean power of each component in W.
        validations: Validations with their metrics.

    """

    name: str
    path: Path
    script: str | None
    meter: str
    sources: Mapping[str, float]
    zone: str | None
    pue: float
    start: datetime | None
    end: datetime | None
    ended_by: str
    components: tuple[Component, ...]
    phase_kwh: Mapping[str, float]
    state_hours: Mapping[str, float]
    emissions: tuple[Emissions, ...]
    unpriced_kwh: float
    hours_waited: float
    elapsed_hours: float
    exits: int
    attempts: int
    nodes: int
    steps: int
    deadline: datetime | None
    spans: tuple[Span, ...] = ()
    intensity: tuple[Step, ...] = ()
    forecasts: tuple[KnownForecast, ...] = ()
    decisions: tuple[Moment, ...] = ()
    messages: tuple[Moment, ...] = ()
    emitted: tuple[tuple[float, float], ...] = ()
    emitted_run_now: tuple[tuple[float, float], ...] = ()
    power_times: tuple[float, ...] = ()
    power: Mapping[str, list[float]] = field(default_factory=dict)
    validations: tuple[Validation, ...] = ()

    @property
    def kwh(self) -> float | None:
        """Energy of all components in kWh; None if none was ever known."""
        known = [one.kwh for one in self.components if one.kwh is not None]
        return sum(known) if known else None

    @property
    def main_emissions(self) -> Emissions | None:
        """Emissions of the first kind of signal; None if no intensity was known."""
        return self.emissions[0] if self.emissions else None

    @property
    def is_measured(self) -> bool:
        """Whether every component was measured by a sensor."""
        return bool(self.components) and all(one.quality == "measured" for one in self.components)

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics of the validations, those of a validation first."""
        names = {name: None for one in self.validations for name in one.metrics}
        return sorted(names, key=lambda name: (not name.startswith("val"), name))


def read_run_report(folder: Path, script: str | None = None) -> RunReport:
    """Return the report of a run from its ledger, which is read once.

    Args:
        folder: Run directory.
        script: Command line of the training, without secrets, or None.

    Raises:
        OSError: If a ledger cannot be read.

    Examples:
        ```python
        report = read_run_report(Path("lightning_green_runs/train-1a2b3c4d"))
        print(report.kwh, report.main_emissions)
        ```

    """
    reader = _Reader()
    for event, _ in iterate_ledger(folder):
        reader.add(event)
    return reader.report(folder, script)


class _Reader:
    """Adds up the events of a run for its report."""

    def __init__(self) -> None:
        self._accounts: FitAccounts = {}
        self._spans, self._intensity, self._power = SpanBuilder(), IntensityCurve(), PowerCurves()
        self._decisions, self._messages = list[Moment](), list[Moment]()
        self._forecasts, self._validations = list[KnownForecast](), list[Validation]()
        self._times, self._grams = list[float](), list[float]()
        self._steps: dict[int | None, int] = defaultdict(int)
        self._deadline: datetime | None = None
        self._zone: str | None = None
        self._meter, self._ended_by, self._pue = "", "not started", 1.0

    def add(self, event: Event) -> None:
        if not event.time_utc:  # an event of another version
            return
        add_to_account(self._accounts, event)
        at = event.timestamp
        self._spans.add(event)
        self._intensity.add(event, at)
        self._power.add(event, at)
        self._steps[event.fit] = max(self._steps[event.fit], event.global_step or 0)
        if event.measured is not None and not event.node_rank:
            self._pue = event.measured.pue
            if event.measured.intensity is not None:
                self._zone = event.measured.intensity.zone
                self._times.append(at)
                self._grams.append(self._grams_so_far())
        if isinstance(event, (Started, *_DECISIONS, *_MESSAGES, Validated)) or event.name in ("finished", "ended"):
            self._add_moment(event, at)

    def _add_moment(self, event: Event, at: float) -> None:
        if event.node_rank:
            return
        if isinstance(event, Started):
            self._meter, self._ended_by = event.meter or self._meter, "running"
        elif isinstance(event, Validated):
            self._validations.append(self._validation(event))
        elif isinstance(event, _MESSAGES):
            self._messages.append(Moment(event.time, event.name, event.reason, None, event.global_step))
        elif isinstance(event, Decision):
            self._deadline = event.deadline or self._deadline
            self._decisions.append(Moment(event.time, event.action, event.reason, event.until, event.global_step))
            if values := read_series(event.forecast):
                self._forecasts.append(KnownForecast(at, values))
        elif isinstance(event, StateChanged) and event.state == "throttled":
            self._decisions.append(Moment(event.time, "throttle", event.reason, event.until, event.global_step))
        if event.name in ("finished", "paused", "interrupted", "failed"):
            self._ended_by = event.name

    def _validation(self, event: Validated) -> Validation:
        joules = sum(sum(one.totals.joules.values()) for one in self._accounts.values())
        numbers = {name: value for name, value in event.metrics.items() if isinstance(value, (int, float))}
        metrics = {printable(name): float(value) for name, value in numbers.items() if math.isfinite(value)}
        grams = self._grams_so_far() if self._times else None
        return Validation(event.time, event.global_step, joules / JOULES_PER_KWH, grams, metrics)

    def _grams_so_far(self) -> float:
        """Return the emissions of the first kind of signal."""
        grams, kind = 0.0, None
        for account in self._accounts.values():
            for name, value in account.totals.gco2e.items():
                kind = kind or name
                if name == kind:
                    grams += value
        return grams

    def report(self, folder: Path, script: str | None) -> RunReport:
        for account in self._accounts.values():
            account.settle()
        totals = sum_totals({number: account.totals for number, account in self._accounts.items()})
        found = self._spans.found
        start, end = (found[0].start, found[-1].end) if found else (None, None)
        first, last = (start.timestamp(), end.timestamp()) if start and end else (0.0, 0.0)
        times, power = self._power.curves(first, last)
        emissions = tuple(_emissions(totals))
        if emissions and self._grams:
            self._grams[-1] = emissions[0].grams  # also of the other nodes, whose last events came later
        run_now = run_now_curve(totals, emissions[0].kind) if emissions else []
        return RunReport(
            name=folder.resolve().name,
            path=folder,
            script=script,
            meter=self._meter,
            sources=_sources(totals),
            zone=self._zone,
            pue=self._pue,
            start=start,
            end=end,
            ended_by=self._ended_by,
            components=tuple(
                Component(name, totals.known_kwh(name), quality) for name, quality in totals.quality.items()
            ),
            phase_kwh={name: totals.joules_by_phase.get(name, 0.0) / JOULES_PER_KWH for name in PHASES},
            state_hours={name: seconds / 3600.0 for name, seconds in totals.seconds_by_state.items()},
            emissions=emissions,
            unpriced_kwh=totals.unpriced_joules / JOULES_PER_KWH,
            hours_waited=totals.hours_waited,
            elapsed_hours=totals.elapsed_hours,
            exits=totals.exits,
            attempts=totals.attempts,
            nodes=totals.nodes,
            steps=sum(self._steps.values()),
            deadline=self._deadline,
            spans=tuple(found),
            intensity=tuple(self._intensity.steps(first, last)),
            forecasts=tuple(_ends(self._forecasts)),
            decisions=tuple(_ends(self._decisions)),
            messages=tuple(_ends(self._messages)),
            emitted=tuple(thinned(self._times, self._grams)),
            emitted_run_now=tuple(thinned([one[0] for one in run_now], [one[1] for one in run_now])),
            power_times=tuple(times),
            power=power,
            validations=tuple(_ends(self._validations)),
        )


def _emissions(totals: Totals) -> Iterator[Emissions]:
    if not totals.is_energy_known:
        return
    baselines = run_now_baselines(totals)
    for kind, grams in totals.gco2e.items():
        one = baselines.get(kind)
        if one is None:
            yield Emissions(kind, grams)
        else:
            std = one.saving_std_pct
            yield Emissions(kind, grams, one.grams, one.saving_pct, std, one.known_share, one.actual)


def _sources(totals: Totals) -> dict[str, float]:
    return {
        f"{source} ({quality})" if quality else source: grams
        for (_, source, quality), grams in totals.gco2e_by_source.items()
    }


def _ends(rows: list[Any]) -> list[Any]:
    """Return the rows; of more than ``MAX_ROWS``, the first and the last ones."""
    half = MAX_ROWS // 2
    return rows if len(rows) <= MAX_ROWS else rows[:half] + rows[-half:]
