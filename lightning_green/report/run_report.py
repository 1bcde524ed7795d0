"""What a report contains: the figures and the curves of one run, read from its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lightning_green.ledger.account import FitAccounts
from lightning_green.ledger.baseline import run_now_curve
from lightning_green.ledger.event_fields import read_float, read_text
from lightning_green.ledger.events import (
    CheckpointFailed,
    Decision,
    Event,
    Failed,
    GridChanged,
    HistoryMissing,
    Interrupted,
    MeterProblem,
    Started,
    StateChanged,
    Validated,
    Warned,
)
from lightning_green.ledger.intensity_series import read_series
from lightning_green.ledger.totals import PHASES
from lightning_green.report.cost import MarketEmissions, Rates, RunCost, run_cost
from lightning_green.report.energy_intervals import EnergyIntervals
from lightning_green.report.run_status import Emissions, RunStatus, read_run_status
from lightning_green.report.series import Step, intensity_steps, mean_power, thinned
from lightning_green.report.spans import Span, SpanBuilder
from lightning_green.utilities.text import printable
from lightning_green.utilities.units import JOULES_PER_KWH

MAX_ROWS = 500
"""Number of decisions, forecasts, validations or messages in a report; in the middle of more, some are left out."""

_MESSAGES = (Warned, GridChanged, MeterProblem, HistoryMissing, CheckpointFailed, Failed, Interrupted)


class Moment(NamedTuple):
    """A decision or a message: its time, what it is, and one sentence."""

    time: datetime
    what: str
    text: str
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
        status: State, energy, emissions and saving.
        meter: Description of the meter; empty without one.
        zone: Grid zone, or None.
        pue: Power usage effectiveness at the last event.
        phase_kwh: Energy by phase in kWh.
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
        cost: Electricity cost; None without prices.
        market: Market-based emissions; None without a factor.

    """

    status: RunStatus
    meter: str = ""
    zone: str | None = None
    pue: float = 1.0
    phase_kwh: Mapping[str, float] = field(default_factory=dict)
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
    cost: RunCost | None = None
    market: MarketEmissions | None = None

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.status.path.resolve().name

    @property
    def emissions(self) -> Emissions | None:
        """Emissions of the first kind of signal; None if no intensity was known."""
        return self.status.emissions[0] if self.status.emissions else None

    @property
    def is_measured(self) -> bool:
        """Whether every component was measured by a sensor."""
        return bool(self.status.components) and all(one.quality == "measured" for one in self.status.components)

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics of the validations, those of a validation first."""
        names = {name: None for one in self.validations for name in one.metrics}
        return sorted(names, key=lambda name: (not name.startswith("val"), name))


def read_run_report(folder: Path, exit_code: int | None = None, rates: Rates | None = None) -> RunReport:
    """Return the report of a run from its ledger, which is read once. Writes nothing.

    Args:
        folder: Run directory.
        exit_code: Exit code of the supervisor of its command; None if it is unknown or the command has not ended.
        rates: Electricity prices and the factor of a contract, or None.

    Raises:
        OSError: If a file cannot be read.
        RuntimeError: If ``run.json`` was written by an incompatible version.
        DamagedRunError: If ``run.json`` is damaged.

    Examples:
        ```python
        report = read_run_report(Path("lightning_green_runs/train-1a2b3c4d"))
        print(report.status.energy_kwh, report.emissions)
        ```

    """
    reader = _Reader(rates or Rates())
    return reader.report(read_run_status(folder, exit_code, visit=reader.add))


class _Reader:
    """Collects the curves of a run while its ledger is read."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._spans, self._energy = SpanBuilder(), EnergyIntervals()
        self._decisions, self._messages = list[Moment](), list[Moment]()
        self._forecasts, self._validations = list[KnownForecast](), list[Validation]()
        self._emitted = list[tuple[float, float]]()
        self._zone: str | None = None
        self._meter, self._pue = "", 1.0

    def add(self, event: Event, accounts: FitAccounts) -> None:
        if not event.time_utc:  # an event of another version
            return
        at = event.timestamp
        self._spans.add(event)
        self._energy.add(event)
        if event.node_rank:
            return
        if event.measured is not None:
            self._pue = event.measured.pue
            if event.measured.intensity is not None:
                self._zone = event.measured.intensity.zone or self._zone
                self._emitted.append((at, _grams(accounts)))
        if isinstance(event, Started):
            self._meter = event.meter or self._meter
        elif isinstance(event, Validated):
            self._validations.append(self._validation(event, accounts))
        elif isinstance(event, _MESSAGES):
            self._messages.append(Moment(event.time, event.name, event.reason, event.global_step))
        elif isinstance(event, Decision):
            self._decisions.append(Moment(event.time, event.action, event.reason, event.global_step))
            if values := read_series(event.forecast):
                self._forecasts.append(KnownForecast(at, values))
        elif isinstance(event, StateChanged) and event.state == "throttled":
            self._decisions.append(Moment(event.time, "throttle", event.reason, event.global_step))

    def _validation(self, event: Validated, accounts: FitAccounts) -> Validation:
        joules = sum(sum(one.totals.joules.values()) for one in accounts.values())
        metrics = {}
        of_fit = f" (fit {event.fit})" if event.fit else ""  # of another model: a curve of its own
        for name, value in event.metrics.items():
            with suppress(ValueError):  # no number, or not a finite one
                metrics[printable(read_text(name)) + of_fit] = read_float(value)
        grams = _grams(accounts) if self._emitted else None
        return Validation(event.time, event.global_step, joules / JOULES_PER_KWH, grams, metrics)

    def report(self, status: RunStatus) -> RunReport:
        totals, found, main = status.history.totals, self._spans.found, next(iter(status.emissions), None)
        first, last = (found[0].start.timestamp(), found[-1].end.timestamp()) if found else (0.0, 0.0)
        times, power = mean_power(self._energy, first, last)
        if main is not None and self._emitted:
            self._emitted[-1] = (
                self._emitted[-1][0],
                main.gco2e,
            )  # also of the other nodes, whose last events may come later
        run_now = [] if main is None else run_now_curve(totals, main.kind)
        places = [one for place, one in totals.intensities.items() if main is not None and place.kind == main.kind]
        return RunReport(
            status=status,
            meter=self._meter,
            zone=self._zone,
            pue=self._pue,
            phase_kwh={name: totals.joules_by_phase.get(name, 0.0) / JOULES_PER_KWH for name in PHASES},
            spans=tuple(found),
            intensity=tuple(intensity_steps(places, first, last)),
            forecasts=tuple(_ends(self._forecasts)),
            decisions=tuple(_ends(self._decisions)),
            messages=tuple(_ends(self._messages)),
            emitted=tuple(thinned(self._emitted)),
            emitted_run_now=tuple(thinned(run_now)),
            power_times=tuple(times),
            power=power,
            validations=tuple(_ends(self._validations)),
            cost=self._cost(status),
            market=self._market(status),
        )

    def _cost(self, status: RunStatus) -> RunCost | None:
        if self._rates.prices is None or status.energy_kwh is None:
            return None
        return run_cost(self._energy, status.history.totals.segments, self._rates.prices, self._rates.currency)

    def _market(self, status: RunStatus) -> MarketEmissions | None:
        factor = self._rates.market_factor
        if factor is None or status.energy_kwh is None:
            return None
        return MarketEmissions(factor, float(self._energy.facility()[2].sum()) * factor)


def _grams(accounts: FitAccounts) -> float:
    """Return the emissions of the first kind of signal."""
    grams, kind = 0.0, None
    for account in accounts.values():
        for name, value in account.totals.gco2e.items():
            kind = kind or name
            if name == kind:
                grams += value
    return grams


def _ends(rows: list[Any]) -> list[Any]:
    """Return the rows; of more than ``MAX_ROWS``, the first and the last ones."""
    half = MAX_ROWS // 2
    return rows if len(rows) <= MAX_ROWS else rows[:half] + rows[-half:]
