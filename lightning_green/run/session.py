"""One fit in this process: its settings, its meter, its grid and its events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lightning_green.energy.meter import Meter
from lightning_green.energy.registry import build_meter
from lightning_green.energy.since import MeterSince
from lightning_green.grid.registry import GridLike, build_grid
from lightning_green.ledger.ledger import STATE_EVENTS, Ledger
from lightning_green.ledger.nodes import OtherNodes
from lightning_green.ledger.totals import JOULES_PER_KWH, Totals, counterfactual_gco2e, energy_kwh, saving_percent
from lightning_green.run.run import Run
from lightning_green.utilities.clock import Clock

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 15.0
SIMULATED_SAMPLE_SECONDS = 900.0
STATE_NUMBERS = {"running": 0, "throttled": 1, "held": 2, "out": 3}


@dataclass
class RunOptions:
    """What the green callbacks of a Trainer ask of their common run; the defaults are those who do not care.

    Raises:
        TypeError: If the clock is not one, or the zone is not a string.

    """

    grid: GridLike = None
    zone: str | None = None
    meter: Meter | str | float | None = "auto"
    pue: float | None = None
    clock: Clock | None = None

    def __post_init__(self) -> None:
        """Refuse what would fail only once the training has begun."""
        if self.clock is not None and not isinstance(self.clock, Clock):
            raise TypeError(f"`clock` should be a SystemClock(), a SimulatedClock(...) or None, got {self.clock!r}.")
        if self.zone is not None and not (isinstance(self.zone, str) and self.zone.strip()):
            raise TypeError(f'`zone` should be a string such as "DE", or None, got {self.zone!r}.')

    def join(self, other: RunOptions) -> RunOptions:
        """Return both together.

        Raises:
            ValueError: If they contradict each other.

        """
        merged = RunOptions()
        for field in fields(RunOptions):
            name, indifferent = field.name, field.default
            mine, others = getattr(self, name), getattr(other, name)
            if mine != indifferent and others != indifferent and mine != others:
                raise ValueError(
                    f"Two callbacks of this Trainer were given different `{name}`: {mine!r} and {others!r}. Give it to "
                    "one of them, or the same to both."
                )
            setattr(merged, name, others if mine == indifferent else mine)
        return merged


class Session:
    """One fit in this process: what it measures, what it records, and the state that it is in.

    On rank 0 it writes to the run's ledger. The first process of every other node measures and writes a ledger of its
    own in the same directory, which rank 0 reads and adds up; it prices and decides nothing. Further processes of a
    node do neither.

    Args:
        run: The run that the fit belongs to.
        options: What the callbacks ask for.
        fit: Number of the fit within the run.
        continuing: Whether an earlier process has begun this fit.

    Attributes:
        totals: Energy, emissions and time of this fit over all restarts, up to the last event; on rank 0 of all nodes.
        past: The recorded events of this fit in earlier processes.
        global_step: Optimizer steps done, up to the last event.
        read_step: Returns the optimizer steps done by now, while a fit is under way.
        state: ``"running"``, ``"throttled"`` or ``"held"``.
        phase: ``"startup"``, ``"restart"``, ``"training"``, ``"validation"``, ``"checkpoint"`` or ``"held"``.
        data_wait_seconds: How long this process has waited for training batches.

    """

    def __init__(self, run: Run, options: RunOptions, fit: int = 0, continuing: bool = False) -> None:
        self.run, self.options, self.fit, self.continuing = run, options, fit, continuing
        self.folder, self.clock, self.node, self.attempt = run.folder, run.clock, run.node, run.attempt
        self.ledger = run.ledger
        self.meter = build_meter(options.meter)
        self.grid = build_grid(options.grid, zone=options.zone)
        self.pue = 1.0 if options.pue is None else options.pue
        self.past, self.totals = run.history(fit) if continuing else ([], Totals())
        several = self.folder is not None and self.node.count > 1
        self.other_nodes = OtherNodes(self.folder.path, self.attempt) if self.folder is not None and several else None
        self.global_step = 0
        self.read_step: Callable[[], int] | None = None
        self.state, self.phase = "running", "restart" if self.past else "startup"
        self.level: tuple[float, float] = (1.0, 1.0)
        self.began: float | None = None
        self.data_wait_seconds = self._energy_at_last = 0.0
        self._last_time = self.clock.time()
        self._power_from = (self.clock.monotonic(), 0.0)
        self._announced = self._ended = False
        self._summary: dict[str, Any] | None = None
        self._gpus: list[str] | None = None
        self._problems: list[str] = []
        self._seq = 0
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def path(self) -> Path | None:
        """The run's directory, or None."""
        return self.run.path

    @property
    def record_on_disk(self) -> dict[str, Any]:
        """This fit's part of ``run.json``; a dict in memory where there is no directory."""
        if self.folder is None:
            return {}
        record: dict[str, Any] = self.folder.record.setdefault("fits", {}).setdefault(str(self.fit), {})
        return record

    def join(self, folder: Path, attempt: int, fit: int) -> None:
        """Open this node's ledger in the directory that rank 0 has claimed; not on rank 0, and once a fit."""
        if self.ledger is not None:
            return
        self.attempt, self.fit = attempt, fit
        self.phase = "restart" if attempt > 1 else "startup"
        self.ledger = Ledger(folder, self.clock, attempt, self.node.name)

    def bind_gpus(self, gpus: list[str]) -> None:
        """Set which GPUs of this node the fit uses; before :meth:`start`."""
        self._gpus = gpus

    def start(self) -> None:
        """Start the meter and the grid; called before anything of the training happens."""
        if self.began is not None:
            return
        running = self.run.take_meter(self._meter_option, self._gpus)
        if running is None:
            if self._gpus is not None:
                self.meter.bind_gpus(self._gpus)
            self.meter.bind_clock(self.clock.monotonic)
            self.meter.start()
        else:
            self.meter = running
        self.meter = MeterSince(self.meter)
        self.meter.start()
        if self.grid is not None:
            self.grid.bind_clock(self.clock.now)
            self.grid.start()
        self.began = self._last_time = self.clock.time()
        self._power_from = (self.clock.monotonic(), 0.0)

    @property
    def _meter_option(self) -> Any:
        return self.options.meter, self.clock

    def announce(self, **fields: Any) -> None:
        """Write the ``started`` event: from now on this process is part of the fit's history."""
        assert self.began is not None
        if self.past or (self.folder is None and self.attempt > 1):
            self.clock.advance("restart")
        self.phase = "training"
        startup = 0.0 if self._announced else self.clock.time() - self.began
        self._announced = True
        if self.folder is not None:
            began = datetime.fromtimestamp(self.began, timezone.utc).isoformat()
            self.record_on_disk.setdefault("first_start", began)
            self.folder.record["clock"] = self.clock.spec()
            self.folder.save()
        if self.node.count > 1:
            fields["nodes"] = self.node.count
        self.record("started", startup_s=startup, meter=self.meter.describe(), **fields)
        measures = self.node.process == 0  # on each node one process does
        if measures and not self.clock.is_simulated and self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._beat, name="lightning-green-heartbeat", daemon=True)
            self._thread.start()

    @property
    def announced(self) -> bool:
        """Whether the ``started`` event has been written."""
        return self._announced

    def _beat(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.sample()

    def sample(self) -> None:
        """Write the energy so far; called every few seconds by a thread of its own."""
        if self._announced:
            self.record("sample")
            self.read_other_nodes()
            self._tell_news()
            if self.folder is not None:
                self.folder.beat()

    def read_other_nodes(self) -> None:
        """Add what the other nodes have written to the totals."""
        if self.other_nodes is not None:
            with self._lock:  # also around the reading: what is read first has to be added first
                for record in self.other_nodes.news():
                    self.totals.add(record)

    def _tell_news(self) -> None:
        """Say once, and put on record, what happened to the sources of intensity and energy."""
        for line in [] if self.grid is None else self.grid.news():
            log.warning("%s", line)
            self.record("grid", reason=line)
        others = None if self.other_nodes is None else self.other_nodes.problem
        for event, problem in (("meter", self.meter.problem), ("warning", others)):
            if problem is not None and problem not in self._problems:
                self._problems.append(problem)
                log.warning("%s", problem)
                self.record(event, reason=problem)

    def sample_if_due(self) -> None:
        """Write the energy so far where simulated time has moved on; real time has its thread."""
        if self.clock.is_simulated and self.clock.time() - self._last_time >= SIMULATED_SAMPLE_SECONDS:
            self.sample()

    def enter(self, state: str | None = None, phase: str | None = None, reason: str = "", **fields: Any) -> None:
        """Go into another state or phase; what was used so far is on record under the old one."""
        with self._lock:
            self.meter.sample()
            changed = state is not None and state != self.state
            self.state, self.phase = state or self.state, phase or self.phase
            self.record("state" if changed else "phase", reason=reason, **fields)

    def record(self, event: str, reason: str = "", **fields: Any) -> None:
        """Write one event, with the energy and the intensity up to now."""
        with self._lock:
            now = self.clock.time()
            if self.read_step is not None:
                self.global_step = self.read_step()
            joules: dict[str, dict[str, Any]] = {
                name: {"value": round(e.joules, 3), "quality": e.quality} for name, e in self.meter.read().items()
            }
            body: dict[str, Any] = {
                "phase": self.phase,
                "state": self.state,
                "power": self.level[0],
                "speed": self.level[1],
                "joules": joules,
                "intensity": self._mean_intensity(self._last_time, now),
                "pue": self.pue,
                "data_wait_s": round(self.data_wait_seconds, 6),
                "global_step": self.global_step,
                "fit": self.fit,
                "reason": reason,
                **fields,
            }
            if self.node.rank > 0:
                event = f"node_{event}" if event in STATE_EVENTS else event  # how the run stands, rank 0 says
                body["node_rank"] = self.node.rank
            if self.ledger is not None:
                written = self.ledger.append(event, **body)
            else:
                self._seq += 1
                at = datetime.fromtimestamp(now, timezone.utc).isoformat()
                written = {
                    "seq": self._seq,
                    "time_utc": at,
                    "node": "",
                    "attempt": self.attempt,
                    "event": event,
                    **body,
                }
            self.totals.add(written)
            self._energy_at_last = sum(float(item["value"]) for item in joules.values())
            self._last_time = now

    def _mean_intensity(self, start: float, end: float) -> dict[str, Any] | None:
        if self.grid is None:
            return None
        reading = self.grid.intensity(datetime.fromtimestamp(end, timezone.utc))
        mean = self.grid.mean(_utc(start), _utc(end))
        if mean is None:
            return None
        return {
            "value": round(mean, 6),
            "now": None if reading is None else reading.value,
            "kind": str(self.grid.kind),
            "source": self.grid.source,
            "zone": self.grid.zone,
            "measured_at": None if reading is None else reading.measured_at.isoformat(),
            "quality": None if reading is None else reading.quality,
        }

    def metrics(self) -> dict[str, float]:
        """Return what goes to the loggers, up to this moment, as Python floats; writes nothing."""
        with self._lock:
            now, monotonic = self.clock.time(), self.clock.monotonic()
            energies = self.meter.read()
            here = sum(energy.joules for energy in energies.values())
            since_last = max(0.0, here - self._energy_at_last)
            metrics = energy_kwh(self.totals, self.phase, since_last)
            metrics.pop("energy/other_kwh", None)  # a meter of the whole node: it is `energy/kwh` once more
            before, joules_before = self._power_from
            if monotonic - before > 1e-6:
                metrics["energy/power_w"] = max(0.0, here - joules_before) / (monotonic - before)
                if self.other_nodes is not None:
                    metrics["energy/power_w"] += sum(self.other_nodes.watts.values())
            if monotonic - before > 1.0:
                self._power_from = (monotonic, here)
            if self.grid is not None:
                suffix = "_marginal" if self.grid.kind.method == "marginal" else ""
                mean = self.grid.mean(_utc(self._last_time), _utc(now))
                reading = self.grid.intensity(_utc(now))
                if reading is not None:
                    metrics[f"carbon/intensity{suffix}"] = float(reading.value)
                grams = self.totals.grams()
                if mean is not None and (grams is not None or not self.totals.gco2e):
                    added = since_last * self.pue / JOULES_PER_KWH * mean
                    metrics[f"carbon/gco2e{suffix}"] = (grams or 0.0) + added
            metrics["carbon/state"] = float(STATE_NUMBERS[self.state])
            first = self.totals.first_start if self.totals.first_start is not None else now
            metrics["carbon/elapsed_hours"] = (now - first) / 3600.0
            return metrics

    def summary(self) -> dict[str, Any]:
        """Return the totals of the fit so far, with the run-now counterfactual.

        Keys are those of the loggers, plus qualities; ``None`` where a number is not known.
        """
        with self._lock:
            if self._summary is not None:
                return self._summary
            if not self._ended:
                self.meter.sample()
                self.record("sample")
                self.read_other_nodes()
            self.totals.settle()
            self._tell_news()
            return self._summarize()

    def _summarize(self) -> dict[str, Any]:
        totals, grid = self.totals, self.grid
        suffix = "_marginal" if grid is not None and grid.kind.method == "marginal" else ""
        run_now = None if grid is None else counterfactual_gco2e(totals, lambda a, b: grid.mean(_utc(a), _utc(b)))
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

    def end(self) -> None:
        """End the fit in this process: its settings, its grid and its thread end with it.

        The meter measures on for the run, to know the energy until the next fit begins.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        self._thread = None
        with self._lock:
            self.totals.settle()
            self._summary = self._summarize()
            if self.grid is not None:
                self.grid.close()
            if isinstance(self.meter, MeterSince):
                meter = self.meter.end()
                if self.node.rank > 0 or self.node.process > 0:  # this session has a run of its own, without a next fit
                    meter.close()
                else:
                    self.run.leave_meter(meter, self._meter_option, self._gpus)
            if self.ledger is not None and self.ledger is not self.run.ledger:
                self.ledger.close()
        self.read_step = None


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
