"""The figures of a fit for the loggers and for its summary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_green.ledger.baseline import Baseline, run_now_baselines
from lightning_green.ledger.nodes import OtherNodes
from lightning_green.ledger.power import energy_kwh
from lightning_green.ledger.totals import Totals
from lightning_green.run.recorder import Recorder, utc
from lightning_green.utilities.units import JOULES_PER_KWH

STATE_NUMBERS = {"running": 0, "throttled": 1, "held": 2, "out": 3}
"""Value of ``carbon/state`` for each state."""


class LiveMetrics:
    """Computes the metrics of a fit up to the moment; writes nothing.

    Args:
        recorder: Recorder of the fit.
        other_nodes: Reader of the other nodes' ledgers; None with one node.

    """

    def __init__(self, recorder: Recorder, other_nodes: OtherNodes | None = None) -> None:
        self._recorder, self._other_nodes = recorder, other_nodes
        self._window = (recorder.clock.monotonic(), 0.0)

    def restart_window(self) -> None:
        """Compute the mean power from now on."""
        self._window = (self._recorder.clock.monotonic(), 0.0)

    def read(self) -> dict[str, float]:
        """Return the metrics by name, as Python floats."""
        recorder = self._recorder
        with recorder.lock:
            now, monotonic = recorder.clock.time(), recorder.clock.monotonic()
            joules = sum(energy.joules for energy in recorder.meter.read().values())
            since_last, metrics = recorder.since_last(), dict[str, float]()
            if recorder.is_energy_known():
                metrics = energy_kwh(recorder.totals, recorder.status.phase, since_last)
                metrics.pop("energy/other_kwh", None)  # of a meter of the whole node: the same as `energy/kwh`
                metrics |= self._power(monotonic, joules)
            metrics |= self._emissions(now, since_last)
            metrics["carbon/state"] = float(STATE_NUMBERS[recorder.status.state])
            first, last = recorder.totals.first_start, recorder.totals.last_time
            metrics["carbon/elapsed_hours"] = 0.0
            if first is not None and last is not None:
                since = max(0.0, monotonic - recorder.last_monotonic)
                metrics["carbon/elapsed_hours"] = (last + since - first) / 3600.0
            return metrics

    def _power(self, monotonic: float, joules: float) -> dict[str, float]:
        """Return the mean power in W since the last call that was more than a second ago."""
        before, joules_before = self._window
        watts = {}
        if monotonic - before > 1e-6:
            others = 0.0 if self._other_nodes is None else sum(self._other_nodes.watts.values())
            watts["energy/power_w"] = max(0.0, joules - joules_before) / (monotonic - before) + others
        if monotonic - before > 1.0:
            self._window = (monotonic, joules)
        return watts

    def _emissions(self, now: float, since_last: float) -> dict[str, float]:
        recorder, grid, found = self._recorder, self._recorder.grid, dict[str, float]()
        if grid is None:
            return found
        kind = str(grid.kind)
        suffix = kind_suffixes([*recorder.totals.gco2e, kind])[kind]
        reading, grams = grid.intensity(utc(now)), emissions_so_far(recorder, now, since_last)
        if reading is not None:
            found[f"carbon/intensity{suffix}"] = float(reading.value)
        if grams is not None:
            found[f"carbon/gco2e{suffix}"] = grams
        return found


def emissions_so_far(recorder: Recorder, now: float, since_last: float) -> float | None:
    """Return the emissions of a fit by the current signal, in gCO2e; None if they are unknown.

    Args:
        recorder: Recorder of the fit.
        now: Time of its clock in seconds since the epoch.
        since_last: Energy since the last event in J.

    """
    mean = recorder.mean_intensity(recorder.last_time, now)
    if recorder.grid is None or mean is None or not recorder.is_energy_known():
        return None
    added = since_last * recorder.pue / JOULES_PER_KWH * mean
    return recorder.totals.gco2e.get(str(recorder.grid.kind), 0.0) + added


def kind_suffixes(kinds: Iterable[str]) -> dict[str, str]:
    """Return the suffix of the names of emissions by kind of signal: they are never added up.

    The first kind of a fit has none, or ``_marginal``. Another kind, after a change of the signal between two starts,
    has its whole name.

    Examples:
        >>> kind_suffixes(["average/lifecycle", "marginal/direct"])
        {'average/lifecycle': '', 'marginal/direct': '_marginal'}
        >>> kind_suffixes(["average/lifecycle", "average/direct"])
        {'average/lifecycle': '', 'average/direct': '_average_direct'}

    """
    found: dict[str, str] = {}
    for kind in kinds:
        short = "_marginal" if kind.startswith("marginal") else ""
        found.setdefault(kind, f"_{kind.replace('/', '_')}" if short in found.values() else short)
    return found


def empty_summary() -> dict[str, Any]:
    """Return the totals of a fit that was not measured, such as a ``fast_dev_run``: no number of energy is known."""
    unknown = (
        "energy/kwh",
        "carbon/gco2e",
        "carbon/counterfactual_gco2e",
        "carbon/gco2e_of_known",
        "carbon/saving_pct",
    )
    return {
        **dict.fromkeys((*unknown, "carbon/saving_std_pct", "carbon/known_share", "carbon/unpriced_kwh")),
        "energy/quality": {},
        "carbon/sources": {},
        "carbon/unknown_because": "a `fast_dev_run` is not measured",
        "carbon/exits": 0,
        "carbon/hours_waited": 0.0,
        "carbon/elapsed_hours": 0.0,
    }


def summarize(recorder: Recorder) -> dict[str, Any]:
    """Return the totals of a fit with the run-now baseline; None where a number is not known.

    Keys are the names of the metrics; ``energy/quality`` with the quality of each component, ``carbon/sources`` with
    the emissions by source and quality of the intensity, and ``carbon/unknown_because``, a sentence or None. The saving
    is that of ``carbon/known_share`` of the work, whose emissions are ``carbon/gco2e_of_known``.
    """
    totals = recorder.totals
    kinds = [*totals.gco2e, *([] if recorder.grid is None else [str(recorder.grid.kind)])]
    baselines = run_now_baselines(totals, recorder.mean_at) if totals.is_energy_known else {}
    emissions: dict[str, Any] = {}
    for number, (kind, suffix) in enumerate((kind_suffixes(kinds) or {"": ""}).items()):
        emissions |= _emissions_of(totals, kind, suffix, "" if number == 0 else suffix, baselines.get(kind))
    return {
        **_energy(totals),
        **({} if totals.nodes == 1 else {"energy/nodes": totals.nodes}),
        "energy/quality": dict(totals.quality),
        **emissions,
        "carbon/sources": {
            f"{source} ({quality})" if quality else source: grams
            for (_, source, quality), grams in totals.gco2e_by_source.items()
        },
        "carbon/unknown_because": None if totals.gco2e and totals.is_energy_known else _why_unknown(recorder),
        "carbon/unpriced_kwh": totals.unpriced_joules / JOULES_PER_KWH if totals.is_energy_known else None,
        "carbon/exits": totals.exits,
        "carbon/hours_waited": totals.hours_waited,
        "carbon/elapsed_hours": totals.elapsed_hours,
    }


def _energy(totals: Totals) -> dict[str, float | None]:
    """Return the energy in kWh by name; None where it is not known."""
    found: dict[str, float | None] = {**energy_kwh(totals)}
    if not totals.is_energy_known:
        return dict.fromkeys(found)
    return found | {f"energy/{name}_kwh": totals.known_kwh(name) for name in totals.quality}


def _emissions_of(totals: Totals, kind: str, suffix: str, other: str, baseline: Baseline | None) -> dict[str, Any]:
    """Return the emissions of one kind of signal, and the saving."""
    grams = totals.gco2e.get(kind) if totals.is_energy_known else None
    return {
        f"carbon/gco2e{suffix}": grams,
        f"carbon/counterfactual_gco2e{suffix}": None if baseline is None else baseline.grams,
        f"carbon/gco2e_of_known{suffix}": None if baseline is None else baseline.actual,
        f"carbon/saving_pct{other}": None if baseline is None else baseline.saving_pct,
        f"carbon/saving_std_pct{other}": None if baseline is None else baseline.saving_std_pct,
        f"carbon/known_share{other}": None if baseline is None else baseline.known_share,
    }


def _why_unknown(recorder: Recorder) -> str:
    if not recorder.totals.is_energy_known:
        return recorder.meter.problem or "the energy is unknown, because nothing is metered"
    if recorder.grid is None:
        return "no `grid` is given, for example EmissionsTracker(grid='typical:DE')"
    return recorder.grid.problem or "no carbon intensity was available"
