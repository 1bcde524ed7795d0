"""A directory in which several runs share a budget."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_green.budget.limits import Limits
from lightning_green.budget.record import VERSION, RunRecord
from lightning_green.budget.status import BudgetStatus
from lightning_green.budget.usage import Usage
from lightning_green.planning.prices import PriceSeries
from lightning_green.utilities.files import create_directory, remove_temporary_files, write_json
from lightning_green.utilities.locks import ProcessLock
from lightning_green.utilities.reading import UnreadableFileError, read_json

FILE = "budget.json"
RUNS = "runs"
_LOCK_SECONDS = 5.0
_MAX_BYTES = 65536

log = logging.getLogger(__name__)


class BudgetError(ValueError):
    """The limits of a budget contradict each other, are missing, or cannot be read."""


class DamagedBudgetError(BudgetError):
    """The file of the limits is damaged."""


@dataclass(frozen=True)
class _Budget:
    """Content of ``budget.json``.

    Args:
        given: Limits of the scripts that use the directory.
        limits: Limits that apply: those of the scripts, or what the command has set in their place.
        kind: Kind of carbon intensity whose emissions count; None if there is no run with a grid yet.

    """

    given: Limits
    limits: Limits
    kind: str | None = None

    @classmethod
    def from_json(cls, record: Any) -> _Budget:
        if not isinstance(record, Mapping) or record.get("version") != VERSION:
            raise ValueError("it was written by another version of Lightning Green")
        kind = record.get("kind")
        if kind is not None and not isinstance(kind, str):
            raise ValueError("`kind` should be a text")
        return cls(Limits.from_json(record.get("given", {})), Limits.from_json(record.get("limits", {})), kind)

    def write(self, path: Path) -> None:
        record = {"version": VERSION, "given": self.given.to_json(), "limits": self.limits.to_json(), "kind": self.kind}
        write_json(path, record)


class BudgetDirectory:
    """A directory in which several runs share a budget.

    ``budget.json`` contains the limits, and ``runs/`` one file for each run, which only that run writes while it
    trains. All files are replaced atomically, so readers need no lock and the directory may be on a network file
    system. A lock is used only to change the limits.

    Args:
        path: The directory.
        updates: Whether ``records`` writes the record of a killed run that it has brought up to its ledger.

    Examples:
        ```python
        status = BudgetDirectory("/shared/sweep-7").read()
        print(status, status.is_used)
        ```

    """

    def __init__(self, path: str | Path, updates: bool = False) -> None:
        self.path, self._updates = Path(path).expanduser().absolute(), updates
        self._skipped: set[str] = set()
        self._ended: dict[str, RunRecord] = {}

    # -- limits -------------------------------------------------------------------------------------------------------

    def join(self, given: Limits, kind: str | None = None) -> BudgetStatus:
        """Create the budget or join it, and return its limits.

        Args:
            given: Limits of the script; empty for those of the directory.
            kind: Kind of carbon intensity of the run, or None.

        Raises:
            BudgetError: If the directory has other limits or none, or counts emissions of another kind.
            OSError: If the directory cannot be written.

        """
        create_directory(self.path / RUNS)
        remove_temporary_files(self.path / RUNS)
        with self._lock():
            known = self._load()
            if known is None:
                if not given:
                    raise BudgetError(
                        f"The budget in {self.path} has no limits. Give one of `kwh`, `gco2e` and `cost`, or set them: "
                        f"lightning-green budget {self.path} --kwh 20"
                    )
                known = _Budget(given, given, kind)
                known.write(self.path / FILE)
            if given and given not in (known.given, known.limits):
                raise BudgetError(
                    f"The budget in {self.path} is {known.limits}, and this run was given {given}. Give the same "
                    "limits in all runs, or none to use those of the directory. To change them: "
                    f"lightning-green budget {self.path} --kwh 20"
                )
            if known.limits.gco2e is not None and kind is not None and known.kind not in (None, kind):
                raise BudgetError(
                    f"The budget in {self.path} counts emissions of the kind {known.kind}, and the grid of this run "
                    f"has the kind {kind}. Use a grid of the same kind, because different kinds are never added up."
                )
            if known.kind is None and kind is not None:
                known = _Budget(known.given, known.limits, kind)
                known.write(self.path / FILE)
        return BudgetStatus(known.limits, kind=known.kind, runs=0, directory=self.path)

    def set_limits(self, limits: Limits) -> BudgetStatus:
        """Set limits, and keep those of other units; scripts keep the limits that they were given.

        Raises:
            OSError: If the directory cannot be written.

        """
        create_directory(self.path / RUNS)
        with self._lock():
            try:
                known = self._load()
            except BudgetError as error:  # damaged: the new limits replace it
                log.warning("%s", error)
                known = None
            known = _Budget(Limits(), Limits()) if known is None else known
            new = _Budget(known.given, known.limits.replace(limits), known.kind)
            new.write(self.path / FILE)
        return BudgetStatus(new.limits, kind=new.kind, runs=0, directory=self.path)

    def exists(self) -> bool:
        """Return whether the directory has a budget."""
        return (self.path / FILE).exists()

    def limits(self) -> BudgetStatus:
        """Return the limits, without the use of any run.

        Raises:
            BudgetError: If there is no budget, or it is damaged.
            OSError: If the directory cannot be read.

        """
        known = self._load()
        if known is None:
            raise BudgetError(f"There is no budget in {self.path}: it has no {FILE}.")
        return BudgetStatus(known.limits, kind=known.kind, runs=0, directory=self.path)

    def _load(self) -> _Budget | None:
        try:
            return _Budget.from_json(read_json(self.path / FILE, _MAX_BYTES))
        except FileNotFoundError:
            return None
        except (UnreadableFileError, ValueError, TypeError) as error:
            raise DamagedBudgetError(
                f"The budget {self.path / FILE} is damaged: {error}. Set its limits again: "
                f"lightning-green budget {self.path} --kwh 20"
            ) from None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Exclude other processes that change the limits, for as long as they take, and five seconds at most.

        Without the lock nothing breaks: a reader never sees a part of a file, and every run reads the limits again.
        """
        lock = ProcessLock(self.path / "budget.lock")
        lock.acquire(_LOCK_SECONDS)
        try:
            yield
        finally:
            lock.release()

    # -- use ----------------------------------------------------------------------------------------------------------

    def read(self, own: RunRecord | None = None, prices: PriceSeries | None = None) -> BudgetStatus:
        """Return the limits and the use of all runs.

        Args:
            own: Record of the run that reads; it replaces the one on disk.
            prices: Electricity prices, for the cost of killed runs.

        Raises:
            BudgetError: If there is no budget, or it is damaged.
            OSError: If the directory cannot be read.

        """
        limits, usage, runs = self.limits(), Usage(), 0
        for record in self.records(prices, None if own is None else own.run_id):
            usage, runs = usage + record.usage, runs + 1
        if own is not None:
            usage, runs = usage + own.usage, runs + 1
        return replace(limits, usage=usage, runs=runs)

    def write(self, record: RunRecord) -> None:
        """Write the record of a run.

        Raises:
            OSError: If it cannot be written.

        """
        record.write(self.path / RUNS)

    def record_of(self, run_id: str) -> RunRecord | None:
        """Return the record of a run; None if it has none that can be read."""
        try:
            return RunRecord.from_file(self.path / RUNS / f"{run_id}.json")
        except (OSError, ValueError, TypeError):
            return None

    def records(self, prices: PriceSeries | None = None, without: str | None = None) -> Iterator[RunRecord]:
        """Yield the records of all runs; that of a killed run is brought up to its ledger. Damaged ones are skipped.

        Args:
            prices: Electricity prices, for the cost of killed runs.
            without: Id of a run to leave out.

        Raises:
            OSError: If the directory cannot be read.

        """
        for path in sorted((self.path / RUNS).iterdir()):
            if path.suffix != ".json" or path.name.startswith(".") or path.stem == without:
                continue
            try:
                record = RunRecord.from_file(path)
            except (OSError, ValueError, TypeError) as error:
                if path.name not in self._skipped:
                    self._skipped.add(path.name)
                    log.warning("The record %s of a budget is skipped: %s.", path, str(error).rstrip("."))
                continue
            yield self._up_to_date(record, prices)

    def _up_to_date(self, record: RunRecord, prices: PriceSeries | None) -> RunRecord:
        ended = self._ended.get(record.run_id)
        if ended is not None and ended.ledger_bytes >= record.ledger_bytes:
            record = ended  # read before, and its file cannot be written
        found = record.up_to_date(prices)
        if found is record:
            return found
        self._ended[record.run_id] = found
        if self._updates and (prices is not None or not found.usage.priced_kwh):  # the run itself has a price
            with suppress(OSError):  # each reader reads the ledger then
                self.write(found)
        return found


def read_budget(directory: str | Path) -> BudgetStatus:
    """Return the limits and the use of the budget in a directory.

    Args:
        directory: The directory of ``EnergyBudget(directory=...)``.

    Raises:
        BudgetError: If there is no budget, or it is damaged.
        OSError: If the directory cannot be read.

    Examples:
        ```python
        if not read_budget("/shared/sweep-7").is_used:
            start_another_trial()
        ```

    """
    return BudgetDirectory(directory).read()
