"""One fit in this process: its meter, its grid, its events, from start to end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from lightning_green.energy.guarded import LAST_SAMPLE_SECONDS, guard
from lightning_green.energy.meter import Meter
from lightning_green.energy.registry import build_meter
from lightning_green.energy.since import MeterSince
from lightning_green.grid.signal import GridSignal
from lightning_green.ledger.account import Account
from lightning_green.ledger.events import (
    CheckpointSaved,
    Event,
    Failed,
    GridChanged,
    Interrupted,
    MeterProblem,
    Paused,
    Sample,
    Started,
    StateEvent,
    Warned,
)
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.nodes import Node, OtherNodes
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.ledger.totals import Totals
from lightning_green.run.absence import idle_devices, intensities_while_away
from lightning_green.run.figures import LiveMetrics, summarize
from lightning_green.run.options import RunOptions
from lightning_green.run.recorder import MemoryLog, Recorder, utc
from lightning_green.run.rewritten_files import build_grid_of_run
from lightning_green.run.run import Run
from lightning_green.utilities.clock import Clock
from lightning_green.utilities.periodic import PeriodicThread
from lightning_green.utilities.processes import own_age

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 15.0
SIMULATED_SAMPLE_SECONDS = 900.0
_SHORTEST_ENDING = 0.1  # seconds that are worth an event


class Stage(Enum):
    """How far a session is."""

    NEW = "nothing is measured yet"
    STARTED = "the meter and the grid have started"
    ENDED = "the fit has ended in this process"


class Session:
    """Measures and records one fit in this process.

    On rank 0 it writes to the run's ledger. The first process of every other node measures and writes a ledger of its
    own in the same directory, which rank 0 reads and adds up. Further processes of a node neither measure nor write.

    Args:
        run: Run that the fit belongs to.
        options: Options of the callbacks.
        fit: Number of the fit within the run.
        continuing: Whether an earlier process has started this fit.

    Attributes:
        recorder: Measures, writes events and keeps the totals.
        ledger: Ledger of this process, or None.
        history: Events of this fit in earlier processes.
        stage: How far the session is.
        announced: Whether the start of the training has been recorded.
        began: Start of the measurement in seconds since the epoch, or None.
        more_metrics: Metrics of callbacks for the loggers, by name.

    """

    def __init__(self, run: Run, options: RunOptions, fit: int = 0, continuing: bool = False) -> None:
        self.run, self.options, self.continuing = run, options, continuing
        self.attempt, self.ledger = run.attempt, run.ledger
        self.history, account = run.fit_history(fit) if continuing else ([], Account())
        self.recorder = Recorder(
            run.clock,
            MemoryLog(run.clock, run.attempt) if run.ledger is None else run.ledger,
            guard(build_meter(options.meter)),
            build_grid_of_run(options.grid, options.zone),
            1.0 if options.pue is None else options.pue,
            account,
            run.node.rank,
            fit,
        )
        self.recorder.status.phase = "restart" if self.history else "startup"
        several = run.folder is not None and run.node.count > 1
        self.other_nodes = OtherNodes(run.folder.path, run.attempt) if run.folder is not None and several else None
        self.stage = Stage.NEW
        self.announced = False
        self.began: float | None = None
        self.more_metrics: dict[str, float] = {}
        self._live = LiveMetrics(self.recorder, self.other_nodes)
        self._heartbeat = PeriodicThread(self._beat, SAMPLE_SECONDS, "lightning-green-heartbeat")
        self._summary: dict[str, Any] | None = None
        self._gpus: list[str] | None = None
        self._problems: set[str] = set()
        self._unmetered, self._metered_from = 0.0, (0.0, 0.0)
        self._exited = False

    # -- what it belongs to -------------------------------------------------------------------------------------------

    @property
    def fit(self) -> int:
        """Number of the fit within its run."""
        return self.recorder.fit

    @property
    def folder(self) -> RunDirectory | None:
        """The run directory, or None."""
        return self.run.folder

    @property
    def path(self) -> Path | None:
        """Path of the run directory, or None."""
        return self.run.path

    @property
    def repeats_steps(self) -> bool:
        """Whether the earlier process of this fit may have trained beyond the state that is restored.

        A planned exit and a signal that left time for a save end at that state.
        """
        last = next((event for event in reversed(self.history) if isinstance(event, StateEvent)), None)
        saved = next((event for event in reversed(self.history) if isinstance(event, CheckpointSaved)), None)
        if isinstance(last, Interrupted):
            return saved is None or (last.global_step or 0) > (saved.global_step or 0)
        return isinstance(last, (Started, Failed))

    @property
    def clock(self) -> Clock:
        """Clock of the run."""
        return self.run.clock

    @property
    def node(self) -> Node:
        """Node of this process."""
        return self.run.node

    @property
    def grid(self) -> GridSignal | None:
        """The grid signal, or None."""
        return self.recorder.grid

    @property
    def meter(self) -> Meter:
        """The energy meter."""
        return self.recorder.meter

    @property
    def totals(self) -> Totals:
        """Totals of this fit over all restarts, up to the last event; on rank 0 of all nodes."""
        return self.recorder.totals

    @property
    def record_on_disk(self) -> dict[str, Any]:
        """This fit's part of ``run.json``; a temporary dict if there is no directory."""
        if self.folder is None:
            return {}
        record: dict[str, Any] = self.folder.record.setdefault("fits", {}).setdefault(str(self.fit), {})
        return record

    # -- start --------------------------------------------------------------------------------------------------------

    def join(self, folder: Path, attempt: int, fit: int) -> None:
        """Open this node's ledger in the directory that rank 0 has claimed; not on rank 0, and once per fit."""
        if self.ledger is not None:
            return
        self.attempt, self.recorder.fit = attempt, fit
        self.recorder.status.phase = "restart" if attempt > 1 else "startup"
        self.ledger = self.recorder.log = Ledger(folder, self.clock, attempt, self.node.name)

    def bind_gpus(self, gpus: list[str]) -> None:
        """Set which GPUs of this node the fit uses; before ``start``."""
        self._gpus = gpus

    def start(self) -> None:
        """Start the meter and the grid, before any work of the training."""
        if self.stage != Stage.NEW:
            return
        self.stage, meter = Stage.STARTED, self.recorder.meter
        running = self.run.reuse_meter(self._meter_option, self._gpus)
        if running is None:
            if self._gpus is not None:
                meter.bind_gpus(self._gpus)
            meter.bind_clock(self.clock.monotonic)
            meter.start()
        self.recorder.meter = MeterSince(meter if running is None else running)
        self.recorder.meter.start()
        if self.grid is not None:
            self.grid.bind_clock(self.clock.now)
            self.grid.start()
        self._unmetered, self.run.was_metered = self._unmetered_seconds(), True
        self.recorder.restart_interval(self._unmetered)
        self._metered_from = self.clock.monotonic(), self.recorder.since_last()
        self._live.restart_window()
        self.began = self.recorder.last_time

    @property
    def _meter_option(self) -> Any:
        return self.options.meter, self.clock

    def _unmetered_seconds(self) -> float:
        """Return the seconds of a restart before this moment: of its imports, its data and its devices.

        0 at the first start, whose script may do anything before it trains, and at a later fit of the process.
        """
        if not self.history or self.clock.is_simulated or self.run.was_metered or hasattr(sys, "ps1"):
            return 0.0
        return own_age() or 0.0

    def _startup_watts(self) -> float:
        """Return the mean power since the meter started, which is that of the time before as well."""
        self.recorder.meter.sample()
        seconds = self.clock.monotonic() - self._metered_from[0]
        return (self.recorder.since_last() - self._metered_from[1]) / seconds if seconds > 0.0 else 0.0

    def announce(self, restored: str | None = None, script: list[str] | None = None) -> None:
        """Record the start of the training: from now on this process is part of the fit's history."""
        assert self.began is not None
        if self.history or (self.folder is None and self.attempt > 1):
            self.clock.advance("restart")
        self.recorder.status.phase = "training"
        startup = self.clock.time() - self.began
        self.announced = True
        if self.folder is not None:
            self.record_on_disk.setdefault("first_start", utc(self.began).isoformat())
            self.folder.record["clock"] = self.clock.spec()
            self.folder.save()
        description = self.recorder.meter.describe()
        nodes = self.node.count if self.node.count > 1 else None
        kinds = list(self.totals.gco2e)
        idle = None if self.node.rank else idle_devices(self.recorder, self.began)
        self.recorder.record(
            Started(
                startup_s=startup,
                meter=description,
                nodes=nodes,
                restored=restored,
                script=script,
                signal=self.recorder.signal or None,
                away=None if self.node.rank else intensities_while_away(self.recorder, self.began),
            ),
            unmetered_joules=self._startup_watts() * self._unmetered if self._unmetered else 0.0,
        )
        if idle is not None:
            self.record(idle)
        self._warn_of_another_kind(kinds)
        if self.node.process == 0 and not self.clock.is_simulated:  # one process per node measures
            self._heartbeat.start()

    def _warn_of_another_kind(self, known: Sequence[str]) -> None:
        grid = self.grid
        if grid is not None and known and str(grid.kind) not in known:
            line = (
                f"The carbon intensity is {grid.kind} from this start on, and was {', '.join(known)} before. Emissions "
                "of different kinds are never added up: each has a name of its own."
            )
            log.warning("%s", line)
            self.record(Warned(reason=line))

    # -- events -------------------------------------------------------------------------------------------------------

    def record(self, event: Event) -> None:
        """Write an event with the energy and the intensity up to now."""
        self.recorder.record(event)

    def sample(self) -> None:
        """Write the energy so far; called every few seconds."""
        if self.announced:
            self.record(Sample())
            self.read_other_nodes()
            self._report_problems()
            if self.folder is not None:
                self.folder.beat()

    def _beat(self) -> None:
        """Write the current energy: a meter with a longer interval is sampled first, so that a kill loses less."""
        self.recorder.meter.sample()
        self.sample()

    def take_last_sample(self) -> None:
        """Take the sample that the totals of the fit end with, and wait for it, for at most a second."""
        meter = self.recorder.meter
        meter.sample(LAST_SAMPLE_SECONDS) if isinstance(meter, MeterSince) else meter.sample()

    def sample_if_due(self) -> None:
        """Write the energy so far if enough simulated time has passed; real time has its thread."""
        if self.clock.is_simulated and self.clock.time() - self.recorder.last_time >= SIMULATED_SAMPLE_SECONDS:
            self.sample()

    def read_other_nodes(self) -> None:
        """Add the events of the other nodes to the totals."""
        if self.other_nodes is not None:
            with self.recorder.lock:  # also around the reading: what is read first has to be added first
                for event in self.other_nodes.new_events():
                    self.recorder.account.add(event)

    def _report_problems(self) -> None:
        """Log and record, once each, what happened to the sources of intensity and energy."""
        for line in [] if self.grid is None else self.grid.pop_messages():
            log.warning("%s", line)
            self.record(GridChanged(reason=line))
        others = None if self.other_nodes is None else self.other_nodes.problem
        of_meter = (self.recorder.meter.problem or "").splitlines()
        for kind, problem in (*((MeterProblem, line) for line in of_meter), (Warned, others)):
            if problem is not None and problem not in self._problems:
                self._problems.add(problem)
                log.warning("%s", problem)
                self.record(kind(reason=problem))

    def record_exit(self, paused: Paused) -> None:
        """Record a planned exit: the energy from now on is that of ending the process."""
        self.recorder.status.phase = "restart"
        self.record(paused)
        self._exited = True

    # -- figures ------------------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """Return the metrics for the loggers up to this moment; writes nothing."""
        return {**self._live.read(), **self.more_metrics}

    def summary(self) -> dict[str, Any]:
        """Return the totals of the fit so far; see ``summarize``."""
        with self.recorder.lock:
            if self._summary is not None:
                return self._summary
            if self.stage != Stage.ENDED:
                self.take_last_sample()
                self.record(Sample())
                self.read_other_nodes()
            self.recorder.account.settle()
            self._report_problems()
            return summarize(self.recorder)

    # -- end ----------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the fit in this process: its grid and its thread stop.

        The meter keeps measuring for the run, to know the energy until the next fit starts.
        """
        with self.recorder.lock:
            if self.stage == Stage.ENDED:
                return
            self.stage = Stage.ENDED
        self._heartbeat.stop()
        with self.recorder.lock:
            if self._exited and self.clock.monotonic() - self.recorder.last_monotonic > _SHORTEST_ENDING:
                self.recorder.meter.sample()
                self.record(Sample())  # of what the loggers and the strategy needed to end
            self.recorder.account.settle()
            self._summary = summarize(self.recorder)
            if self.grid is not None:
                self.grid.close()
            if isinstance(self.recorder.meter, MeterSince):
                meter = self.recorder.meter.end()
                if self.node.rank > 0 or self.node.process > 0:  # this session has a run of its own, without a next fit
                    meter.close()
                else:
                    self.run.keep_meter(meter, self._meter_option, self._gpus)
            if self.ledger is not None and self.ledger is not self.run.ledger:
                self.ledger.close()
        self.recorder.read_step = None
