"""Everything that is known about a run: one structure, of which all reports of a run are views."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lightning_green.ledger.baseline import run_now_baselines
from lightning_green.ledger.events import BudgetChecked, Decision, StateEvent
from lightning_green.ledger.history import RunHistory, Visitor, read_history
from lightning_green.ledger.run_directory import load_record
from lightning_green.ledger.totals import Totals
from lightning_green.report.budget_text import budget_fields
from lightning_green.report.run_state import RunState, find_state
from lightning_green.utilities.clock import clock_from_record
from lightning_green.utilities.redaction import shell_line
from lightning_green.utilities.units import JOULES_PER_KWH


@dataclass(frozen=True)
class FitStatus:
    """One fit of a run.

    Args:
        fit: Number of the fit.
        state: Its state.
        energy_kwh: Its energy; None if it is unknown.

    """

    fit: int
    state: RunState
    energy_kwh: float | None


@dataclass(frozen=True)
class ComponentEnergy:
    """Energy of one component.

    Args:
        component: Its name, such as ``"gpu"``.
        kwh: Its energy; None if it is unknown.
        quality: The worst quality with which it was measured.

    """

    component: str
    kwh: float | None
    quality: str


@dataclass(frozen=True)
class SourceEmissions:
    """Emissions that were computed from one source of carbon intensity.

    Args:
        source: Its name; may be empty.
        quality: Quality of its values; empty if it is unknown.
        gco2e: The emissions.

    """

    source: str
    quality: str
    gco2e: float


@dataclass(frozen=True)
class Emissions:
    """Emissions by one kind of carbon intensity, and the saving against running without waiting.

    Args:
        kind: Kind of the intensity, such as ``"average/lifecycle"``.
        gco2e: The emissions.
        sources: The sources of the intensity.
        run_now_gco2e: Emissions without waiting, of the part of the work whose intensity is known; None if unknown.
        gco2e_of_known: Emissions of that part, and of all holding, exiting and resuming; None if unknown.
        saving_pct: The saving in percent, negative if waiting cost more than it saved; None if it is unknown.
        saving_std_pct: Its standard deviation; None if it is unknown.
        known_share: Fraction of the work whose baseline is known; None if none is.

    """

    kind: str
    gco2e: float
    sources: tuple[SourceEmissions, ...]
    run_now_gco2e: float | None
    gco2e_of_known: float | None
    saving_pct: float | None
    saving_std_pct: float | None
    known_share: float | None


@dataclass(frozen=True)
class RunStatus:
    """State and totals of a run.

    Args:
        path: Run directory.
        run_id: Identifier of the run, or None.
        script: Command line of the script without its secrets, or None.
        now: Time of the clock of the run.
        state: State of the run.
        fits: State of each fit, if there are several.
        steps: Optimizer steps, summed over the fits.
        total_steps: Steps up to the limits of the Trainer; None if they are unknown or there are several fits.
        decision: Reason of the last decision, or None.
        deadline: The deadline, or None.
        expected_end: Expected end by the last decision, or None.
        energy_kwh: Energy; None if it is unknown.
        components: Energy of each component.
        between_fits_kwh: Energy between the fits, which is not included.
        node_kwh: Energy of each node, if there are several.
        emissions: Emissions of each kind of carbon intensity; empty if the energy or the intensity is unknown.
        elapsed_hours: Hours since the first start.
        waited_hours: Hours paused in process or exited.
        exits: Planned exits.
        starts: Starts.
        first_start: Time of the first start, or None.
        last_event: Time of the last event, or None.
        budget: Last known use of its budget; None if it has none.
        history: The history from which this was computed.

    """

    path: Path
    run_id: str | None
    script: str | None
    now: datetime
    state: RunState
    fits: tuple[FitStatus, ...]
    steps: int
    total_steps: int | None
    decision: str | None
    deadline: datetime | None
    expected_end: datetime | None
    energy_kwh: float | None
    components: tuple[ComponentEnergy, ...]
    between_fits_kwh: float
    node_kwh: tuple[float, ...]
    emissions: tuple[Emissions, ...]
    elapsed_hours: float
    waited_hours: float
    exits: int
    starts: int
    first_start: datetime | None
    last_event: datetime | None
    budget: BudgetChecked | None
    history: RunHistory = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the status as a JSON object; times are ISO 8601 in UTC, and unknown values are None."""
        return {
            "run_dir": str(self.path),
            "run_id": self.run_id,
            "script": self.script,
            "now": _iso(self.now),
            **_state_json(self.state),
            "steps": self.steps,
            "total_steps": self.total_steps,
            "fits": [{"fit": f.fit, **_state_json(f.state), "energy_kwh": f.energy_kwh} for f in self.fits],
            "decision": self.decision,
            "deadline": _iso(self.deadline),
            "expected_end": _iso(self.expected_end),
            "energy_kwh": self.energy_kwh,
            "components": [asdict(one) for one in self.components],
            "between_fits_kwh": self.between_fits_kwh,
            "node_kwh": list(self.node_kwh),
            "emissions": [{**asdict(one), "sources": [asdict(own) for own in one.sources]} for one in self.emissions],
            "elapsed_hours": self.elapsed_hours,
            "waited_hours": self.waited_hours,
            "exits": self.exits,
            "starts": self.starts,
            "first_start": _iso(self.first_start),
            "last_event": _iso(self.last_event),
            "budget": None if self.budget is None else _budget_json(self.budget),
        }


def read_run_status(
    path: Path, exit_code: int | None = None, earlier: RunStatus | None = None, visit: Visitor | None = None
) -> RunStatus:
    """Return the status of the run in a directory. Writes nothing.

    The time is proportional to the number of events in its ledgers, about 0.1 ms for each.

    Args:
        path: Run directory.
        exit_code: Exit code of the supervisor of its command; None if it is unknown or the command has not ended.
        earlier: An earlier status; its history is used again if nothing has been appended to the ledgers since.
        visit: Called with each event of the ledgers, see ``read_history``.

    Raises:
        OSError: If a file cannot be read.
        RuntimeError: If ``run.json`` was written by an incompatible version.
        DamagedRunError: If ``run.json`` is damaged.

    """
    record = load_record(path) or {}
    history = read_history(path, None if earlier is None else earlier.history, visit, merge_samples=True)
    for account in history.accounts.values():
        account.settle()
    events, totals = history.events, history.totals
    numbers = sorted({event.fit for event in events if isinstance(event, StateEvent) and event.fit})
    clock = clock_from_record(record.get("clock"))
    clock.look(path)
    elapsed, waited = totals.elapsed_hours, totals.hours_waited
    if totals.out_since is not None and totals.last_time is not None:  # it is waiting at this moment
        since = max(0.0, clock.time() - totals.last_time) / 3600.0
        elapsed, waited = elapsed + since, waited + since
    decisions = [event for event in reversed(events) if isinstance(event, Decision)]
    invocation = record.get("invocation")
    return RunStatus(
        path=path,
        run_id=record.get("run_id"),
        script=None if not invocation else _script(invocation),
        now=clock.now(),
        state=find_state(path, events, max(history.steps_by_fit.values(), default=0), exit_code),
        fits=tuple(_fit_status(path, history, number) for number in ([0, *numbers] if numbers else ())),
        steps=history.steps,
        total_steps=None if numbers else total_steps(record.get("fits", {}).get("0"), history.steps),
        decision=decisions[0].reason if decisions else None,
        deadline=next((one.deadline for one in decisions if one.deadline), None),
        expected_end=decisions[0].expected_end if decisions else None,
        energy_kwh=totals.kwh if totals.is_energy_known else None,
        components=tuple(ComponentEnergy(name, totals.known_kwh(name), q) for name, q in totals.quality.items()),
        between_fits_kwh=totals.between_joules / JOULES_PER_KWH,
        node_kwh=_node_kwh(totals),
        emissions=_emissions(totals) if totals.is_energy_known else (),
        elapsed_hours=elapsed,
        waited_hours=waited,
        exits=totals.exits,
        starts=totals.attempts,
        first_start=_at(totals.first_start),
        last_event=_at(totals.last_time),
        budget=next((event for event in reversed(events) if isinstance(event, BudgetChecked)), None),
        history=history,
    )


def total_steps(fit: Mapping[str, Any] | None, steps: int = 0) -> int | None:
    """Return the number of optimizer steps up to the limits of the Trainer; None if it is unknown.

    Args:
        fit: Record of a fit in ``run.json``, which may contain anything.
        steps: Steps done; a smaller total is wrong, for example because of a callback that changes the accumulation.

    Examples:
        >>> limits = {"max_epochs": 3, "max_steps": -1, "accumulate_grad_batches": 4}
        >>> data, optimization = {"training_batches": 10}, {"optimizers": [{"groups": []}]}
        >>> total_steps({"identity": {"limits": limits}, "data": data, "optimization": optimization})
        9

    """
    try:
        limits, found = (fit or {})["identity"]["limits"], []
        if limits["max_steps"] is not None and limits["max_steps"] >= 0:
            found.append(int(limits["max_steps"]))
        batches, optimizers = (fit or {})["data"]["training_batches"], (fit or {})["optimization"]["optimizers"]
        if limits["max_epochs"] is not None and limits["max_epochs"] >= 0 and len(optimizers) == 1:
            found.append(int(limits["max_epochs"]) * math.ceil(batches / limits["accumulate_grad_batches"]))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return min(found) if found and min(found) >= steps else None


def _fit_status(path: Path, history: RunHistory, number: int) -> FitStatus:
    own = [event for event in history.events if event.fit == number]
    totals = history.accounts[number].totals if number in history.accounts else Totals()
    state = find_state(path, own, history.steps_by_fit.get(number, 0))
    return FitStatus(number, state, totals.kwh if totals.is_energy_known else None)


def _emissions(totals: Totals) -> tuple[Emissions, ...]:
    baselines, found = run_now_baselines(totals), []
    for kind, grams in totals.gco2e.items():
        sources = tuple(
            SourceEmissions(source, quality, own)
            for (known, source, quality), own in totals.gco2e_by_source.items()
            if known == kind
        )
        base = baselines.get(kind)
        found.append(
            Emissions(
                kind=kind,
                gco2e=grams,
                sources=sources,
                run_now_gco2e=None if base is None else base.grams,
                gco2e_of_known=None if base is None else base.actual,
                saving_pct=None if base is None else base.saving_pct,
                saving_std_pct=None if base is None else base.saving_std_pct,
                known_share=None if base is None else base.known_share,
            )
        )
    return tuple(found)


def _node_kwh(totals: Totals) -> tuple[float, ...]:
    nodes = sorted(totals.by_node.items())
    return tuple(node.joules / JOULES_PER_KWH for _, node in nodes) if len(nodes) > 1 else ()


def _script(invocation: Mapping[str, Any]) -> str:
    """Return the script, its arguments and the variables that are part of its identity."""
    variables = [f"{name}={value}" for name, value in invocation["variables"].items()]
    return shell_line([*variables, invocation["script"], *invocation["arguments"]])


def _state_json(state: RunState) -> dict[str, Any]:
    return {
        "state": state.name,
        "step": state.step,
        "until": _iso(state.until),
        "reason": state.reason,
        "is_supervised": state.is_supervised,
    }


def _budget_json(event: BudgetChecked) -> dict[str, Any]:
    """Return the use of a budget as JSON."""
    return {**budget_fields(event), "action": event.action, "time": event.time_utc}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(timezone.utc).isoformat()


def _at(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):  # a ledger may contain any time
        return None
