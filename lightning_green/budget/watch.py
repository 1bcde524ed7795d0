"""Compares the use of a budget with its limits while a run trains."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_green.budget.directory import BudgetDirectory, BudgetError, DamagedBudgetError
from lightning_green.budget.limits import Limits
from lightning_green.budget.record import RunRecord
from lightning_green.budget.status import BudgetStatus
from lightning_green.budget.usage import LedgerUsage, Usage
from lightning_green.ledger.events import BudgetChecked, Event
from lightning_green.ledger.tail import LedgerTail
from lightning_green.planning.prices import PriceSeries


@dataclass(frozen=True)
class RunId:
    """A run and its directory.

    Args:
        run_id: Id of the run.
        path: Run directory; None if there is none.
        is_restarted: Whether it was started by a supervisor, so that nobody may be present to fix a budget.

    """

    run_id: str
    path: Path | None = None
    is_restarted: bool = False


class BudgetWatch:
    """Reads what a run has used, keeps its record in the directory of the budget, and adds the other runs.

    If the directory cannot be used, the run is compared with the limits alone.

    Args:
        limits: Limits of the script.
        run: The run.
        kind: Kind of the carbon intensity, or None.
        prices: Electricity prices, or None.
        directory: Directory that the runs share; None for the budget of this run.

    Attributes:
        status: How much is used.
        own: What this run has used.
        problem: Why the directory cannot be used, or None.
        conflict: Why a start by a person would have failed, or None.

    Raises:
        BudgetError: If the directory has other limits or none, unless the run was started by a supervisor.

    """

    def __init__(
        self,
        limits: Limits,
        run: RunId,
        kind: str | None = None,
        prices: PriceSeries | None = None,
        directory: BudgetDirectory | None = None,
    ) -> None:
        self._limits, self._run, self._kind, self._prices = limits, run, kind, prices
        self._directory = directory
        self._own = LedgerUsage(prices)
        self._tail = None if run.path is None else LedgerTail(run.path)
        self._lock = threading.Lock()
        self._added = deque[Event]()
        self._has_read = False
        self.own = Usage()
        self.problem: str | None = None
        self.conflict: str | None = None
        self.status = BudgetStatus(limits, kind=kind)
        if directory is not None:
            self._join(directory)

    def add(self, event: Event) -> None:
        """Add an event of a run without a directory; the training does not wait for a check in progress."""
        self._added.append(event)

    def update(self) -> BudgetStatus:
        """Read the use of this run and of the others, and write the record of this run."""
        with self._lock:
            record = self._own_record()
            self.own = record.usage
            if self._kind is None and len(record.usage.gco2e) == 1:  # the grid of this process is unknown
                (self._kind,) = record.usage.gco2e
            self.status = self._with_others(record) or BudgetStatus(self._limits, record.usage, self._kind)
            return self.status

    def _join(self, directory: BudgetDirectory) -> None:
        try:
            self.status = directory.join(self._limits, self._kind)
        except (OSError, DamagedBudgetError) as error:
            if not self._limits and not self._run.is_restarted:
                if isinstance(error, BudgetError):
                    raise
                raise BudgetError(
                    f"The budget in {directory.path} cannot be read ({error.strerror}). Fix its permissions, or give "
                    "limits, which then apply to this run."
                ) from None
            self.problem = _describe(directory, error)
            return
        except BudgetError as error:
            if not self._run.is_restarted:
                raise
            self.conflict = f"{error} The run continues with the limits in the directory."
            try:
                self.status = directory.limits()
            except (OSError, BudgetError):  # it has none
                return
        self._limits, self._kind = self.status.limits, self.status.kind or self._kind

    def _own_record(self) -> RunRecord:
        while self._added:
            self._own.add(self._added.popleft())
        if self._tail is not None:
            events = self._tail.all_events()
            if events and not self._has_read:
                self._has_read = True
                self._own.keep(self._known(events))
            for event in events:
                self._own.add(event)
        path, size = ("", 0) if self._run.path is None or self._tail is None else (str(self._run.path), self._tail.size)
        return RunRecord(self._run.run_id, path, self._own.read(), self._own.state or "started", size)

    def _known(self, events: Iterable[Event]) -> Usage:
        """Return the cost that earlier processes of the run have computed last, from its record and its ledger.

        Energy without a price after that is not part of it, so that a process with prices can price it.
        """
        record = None if self._directory is None else self._directory.record_of(self._run.run_id)
        known = [Usage() if record is None else record.usage]
        folder = None if self._directory is None else str(self._directory.path)
        for event in events:
            if isinstance(event, BudgetChecked) and event.directory in (folder, None) and event.priced:
                with suppress(ValueError):
                    known.append(Usage.from_json({**Usage().to_json(), **event.priced}))
        return max(known, key=lambda one: (one.priced_kwh, -one.unknown_price_kwh))

    def _with_others(self, record: RunRecord) -> BudgetStatus | None:
        """Return the status with the other runs; None without a directory that can be used."""
        directory = self._directory
        if directory is None:
            return None
        try:
            directory.write(record)
            found = directory.read(record, self._prices)
        except (OSError, BudgetError) as error:
            self.problem = _describe(directory, error)
            return None
        self.problem = None
        self._limits = found.limits  # for when the directory vanishes
        return replace(found, kind=found.kind or self._kind)


def _describe(directory: BudgetDirectory, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return (
        f"The budget in {directory.path} cannot be used ({reason}). Training continues, and only what this run has "
        "used is compared with the limits."
    )
