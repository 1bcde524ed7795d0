"""Compares the use of a budget with its limits while a run trains."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_green.budget.directory import BudgetDirectory, BudgetError
from lightning_green.budget.limits import Limits
from lightning_green.budget.record import RunRecord
from lightning_green.budget.status import BudgetStatus
from lightning_green.budget.usage import LedgerUsage
from lightning_green.ledger.events import Event
from lightning_green.ledger.tail import LedgerTail
from lightning_green.planning.prices import PriceSeries


@dataclass(frozen=True)
class RunId:
    """A run and its directory.

    Args:
        run_id: Id of the run.
        path: Run directory; None if there is none.

    """

    run_id: str
    path: Path | None = None


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
        problem: Why the directory cannot be used, or None.

    Raises:
        BudgetError: If the directory has other limits or none.

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
        self.problem: str | None = None
        self.status = BudgetStatus(limits, kind=kind)
        if directory is not None:
            self._join(directory)

    def add(self, event: Event) -> None:
        """Add an event of a run without a directory."""
        with self._lock:
            self._own.add(event)

    def update(self) -> BudgetStatus:
        """Read the use of this run and of the others, and write the record of this run."""
        with self._lock:
            record = self._own_record()
            self.status = self._with_others(record) or BudgetStatus(self._limits, record.usage, self._kind)
            return self.status

    def _join(self, directory: BudgetDirectory) -> None:
        try:
            self.status = directory.join(self._limits, self._kind)
        except OSError as error:
            if not self._limits:
                raise BudgetError(
                    f"The budget in {directory.path} cannot be read ({error.strerror}). Fix its permissions, or give "
                    "limits, which then apply to this run."
                ) from None
            self.problem = _describe(directory, error)
            return
        self._limits, self._kind = self.status.limits, self.status.kind or self._kind

    def _own_record(self) -> RunRecord:
        if self._tail is not None:
            for event in self._tail.all_events():
                self._own.add(event)
        path, size = ("", 0) if self._run.path is None or self._tail is None else (str(self._run.path), self._tail.size)
        return RunRecord(self._run.run_id, path, self._own.read(), self._own.state or "started", size)

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
