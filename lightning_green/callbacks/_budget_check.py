"""Checks of a budget during a fit, on rank 0."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress

from lightning_green.budget.status import BudgetStatus
from lightning_green.budget.watch import BudgetWatch, RunId
from lightning_green.ledger.events import BudgetChecked, Warned
from lightning_green.planning.prices import PriceSeries
from lightning_green.run.fit import Fit
from lightning_green.run.recorder import EventLog, EventT
from lightning_green.run.session import Session, Stage
from lightning_green.utilities.periodic import PeriodicThread
from lightning_green.utilities.quantities import format_percent

log = logging.getLogger(__name__)

OWN_METRIC, SHARED_METRIC = "budget/used_pct", "budget/directory_used_pct"
MAX_WAIT_SECONDS = 5.0
"""Longest time for which the training waits for the file system of a budget."""

_PRICED = ("cost", "priced_kwh", "unknown_price_kwh")


class BudgetCheck:
    """Compares a budget with its limits every few seconds, and warns once.

    A thread reads the ledger, the other runs and the clock, so that a slow file system does not delay the training. On
    a simulated clock, the checks are made between batches.

    Args:
        fit: The fit.
        watch: Reads the use.
        warn_at: Fraction of a limit at which to warn.
        every: Seconds between two checks.
        prices: Electricity prices to record, or None.
        problems: Sentences to warn about at the start.

    """

    def __init__(
        self,
        fit: Fit,
        watch: BudgetWatch,
        warn_at: float,
        every: float,
        prices: PriceSeries | None = None,
        problems: Sequence[str] = (),
    ) -> None:
        self._fit, self._session, self._watch, self._warn_at, self._every = fit, fit.session, watch, warn_at, every
        self._thread = PeriodicThread(self._check, every, "lightning-green-budget")
        self._prices, self._problems = prices, problems
        self._bounded: threading.Thread | None = None
        self._next, self._problem = 0.0, ""
        self._notes: set[str] = set()
        self._is_simulated = fit.session.clock.is_simulated
        self._warned = self._warned_before()

    @property
    def status(self) -> BudgetStatus:
        """How much was used at the last check."""
        return self._watch.status

    @property
    def problem(self) -> str | None:
        """Why the directory cannot be used, or None."""
        return self._watch.problem

    def start(self) -> None:
        """Check now and from now on, once the start of the training is recorded."""
        for line in self._problems:
            self.warn(line)
        self.record_use()
        if not self._is_simulated:
            self._thread.start()

    def record_use(self) -> None:
        """Check now, and record the use; that of the last check if the file system does not respond."""
        self._within(self._thread.now)  # not at the same time as the thread
        self.record(None)

    def stop(self) -> None:
        """Write the last record, with the end of the fit in the ledger, unless the file system does not respond."""
        if self._thread.stop() and self._session.announced:
            self._within(self._update)

    def check_if_due(self) -> None:
        """Check between two batches on a simulated clock; real time has its thread."""
        if self._is_simulated and self._session.clock.time() >= self._next:
            self._check()

    def record(self, action: str | None, reason: str = "") -> None:
        """Record the use of the budget in the ledger.

        Args:
            action: ``"warn"``, ``"stop"``, ``"pause"``, ``"throttle"`` or None.
            reason: One sentence for people.

        """
        status, own = self.status, self._watch.own
        directory = None if status.directory is None else str(status.directory)
        self._session.record(
            BudgetChecked(
                reason=reason,
                action=action,
                limits=status.limits.to_json(),
                used=status.used,
                runs=status.runs,
                directory=directory,
                priced={name: getattr(own, name) for name in _PRICED} if own.priced_kwh else {},
                prices=None if action or self._prices is None else self._prices.to_json(self._session.clock.time()),
            )
        )

    def warn(self, message: str) -> None:
        """Warn and record the warning."""
        log.warning("%s", message)
        self._session.record(Warned(reason=message))

    def _within(self, function: Callable[[], None]) -> None:
        """Call a function in a thread and wait for it, for a few seconds: a network file system may not respond."""
        if self._is_simulated:
            function()
        elif self._bounded is None or not self._bounded.is_alive():  # one that hangs is enough
            self._bounded = threading.Thread(target=function, name="lightning-green-budget-now", daemon=True)
            with suppress(RuntimeError):  # no further thread can be started, for example while the interpreter ends
                self._bounded.start()
                self._bounded.join(MAX_WAIT_SECONDS)

    def _check(self) -> None:
        session = self._session
        if session.stage is Stage.ENDED:
            return
        self._next = session.clock.time() + self._every
        if session.clock.monotonic() - session.recorder.last_monotonic >= self._every / 2:  # there is no newer event
            session.recorder.meter.sample()
            session.sample()
        self._update()
        status = self.status
        for line in status.notes():
            topic = line.partition(" of ")[0]
            if topic not in self._notes:
                self._notes.add(topic)
                self.warn(line)
        if not self._warned and status.fraction >= self._warn_at:
            self._warned = True
            line = f"{format_percent(100 * status.fraction)} of a budget is used: {status}."
            self.warn(line)
            self.record("warn", line)

    def _update(self) -> None:
        status = self._watch.update()
        metric = OWN_METRIC if status.directory is None else SHARED_METRIC
        self._session.more_metrics[metric] = 100.0 * status.fraction
        problem = self._watch.problem or ""
        if problem and not self._problem:
            self.warn(problem)
        elif self._problem and not problem:
            log.warning("The budget in %s can be used again.", status.directory)
        self._problem = problem

    def _warned_before(self) -> bool:
        """Return whether an earlier process of the fit has warned about the same limits."""
        status = self.status
        directory = None if status.directory is None else str(status.directory)
        return any(
            event.action == "warn" and event.limits == status.limits.to_json() and event.directory == directory
            for event in self._session.history
            if isinstance(event, BudgetChecked)
        )


def run_id_of(session: Session, is_restarted: bool = False) -> RunId:
    """Return the id of a run and its directory; a random one without a directory.

    Args:
        session: Session of the run.
        is_restarted: Whether a supervisor has started it by itself.

    """
    if session.folder is None:
        return RunId(f"memory-{uuid.uuid4().hex[:12]}", is_restarted=is_restarted)
    return RunId(str(session.folder.record["run_id"]), session.folder.path.absolute(), is_restarted)


def watch_memory(session: Session, watch: BudgetWatch) -> None:
    """Pass the events of a run without a directory to its budget, because there is no ledger to read."""
    if session.ledger is None:
        session.recorder.log = _Copying(session.recorder.log, watch)


class _Copying:
    """Passes each event to a budget."""

    def __init__(self, events: EventLog, watch: BudgetWatch) -> None:
        self._events, self._watch = events, watch

    def append(self, event: EventT) -> EventT:
        """Append an event and return it with its header."""
        written = self._events.append(event)
        self._watch.add(written)
        return written
