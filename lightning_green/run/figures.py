"""The figures of a fit for the loggers and for its summary."""

from __future__ import annotations

from typing import Any

from lightning_green.ledger.baseline import counterfactual_gco2e, saving_percent
from lightning_green.ledger.nodes import OtherNodes
from lightning_green.ledger.power import energy_kwh
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
            since_last = recorder.since_last()
            metrics = energy_kwh(recorder.totals, recorder.status.phase, since_last)
            metrics.pop("energy/other_kwh", None)  # of a meter of the whole node: the same as `energy/kwh`
            metrics |= self._power(monotonic, joules)
            metrics |= self._emissions(now, since_last)
            metrics["carbon/state"] = float(STATE_NUMBERS[recorder.status.state])
            first = recorder.totals.first_start
            metrics["carbon/elapsed_hours"] = (now - (now if first is None else first)) / 3600.0
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
        suffix = suffix_of(recorder)
        mean, reading = recorder.mean_intensity(recorder.last_time, now), grid.intensity(utc(now))
        if reading is not None:
            found[f"carbon/intensity{suffix}"] = float(reading.value)
        grams = recorder.totals.grams()
        if mean is not None and (grams is not None or not recorder.totals.gco2e):
            added = since_last * recorder.pue / JOULES_PER_KWH * mean
            found[f"carbon/gco2e{suffix}"] = (grams or 0.0) + added
        return found


def suffix_of(recorder: Recorder) -> str:
    """Return the suffix of the names of emissions, which keeps marginal and average signals apart."""
    return "_marginal" if recorder.grid is not None and recorder.grid.kind.method == "marginal" else ""


def empty_summary() -> dict[str, Any]:
    """Return the totals of a fit that was not measured, such as a ``fast_dev_run``: no number of energy is known."""
    unknown = ("energy/kwh", "carbon/gco2e", "carbon/counterfactual_gco2e", "carbon/saving_pct", "carbon/unpriced_kwh")
    return {
        **dict.fromkeys(unknown),
        "energy/quality": {},
        "carbon/exits": 0,
        "carbon/hours_waited": 0.0,
        "carbon/elapsed_hours": 0.0,
    }


def summarize(recorder: Recorder) -> dict[str, Any]:
    """Return the totals of a fit with the run-now baseline; None where a number is not known.

    Keys are the names of the metrics, and ``energy/quality`` with the quality of each component.
    """
    totals, suffix = recorder.totals, suffix_of(recorder)
    run_now = None if recorder.grid is None else counterfactual_gco2e(totals, recorder.mean_intensity)
    grams = totals.grams()
    saving = None if grams is None or run_now is None else saving_percent(grams, run_now)
    return {
        **energy_kwh(totals),
        **({} if totals.nodes == 1 else {"energy/nodes": totals.nodes}),
        "energy/quality": dict(totals.quality),
        f"carbon/gco2e{suffix}": grams,
        f"carbon/counterfactual_gco2e{suffix}": run_now,
        "carbon/saving_pct": saving,
        "carbon/unpriced_kwh": totals.unpriced_joules / JOULES_PER_KWH,
        "carbon/exits": totals.exits,
        "carbon/hours_waited": totals.hours_waited,
        "carbon/elapsed_hours": totals.elapsed_hours,
    }
