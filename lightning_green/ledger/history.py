"""The history of a run: its events up to now and their totals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_green.ledger.account import FitAccounts, add_to_account
from lightning_green.ledger.events import BudgetChecked, Decision, Ended, Event, Paused, StateChanged, StateEvent
from lightning_green.ledger.ledger import iterate_ledger, last_state_event, ledger_files
from lightning_green.ledger.totals import Totals, sum_totals

_MAX_BYTES = 4 * 2**20
"""Size of the lines whose events are kept; more than the last half of them are not needed."""

Visitor = Callable[[Event, FitAccounts], None]
"""Receives each event of a run, and the accounts of its fits up to it."""


@dataclass(frozen=True)
class RunHistory:
    """What the ledgers of a run contain up to now.

    The memory that it takes does not depend on the length of the ledgers.

    Args:
        events: The last events in their order, and of older ones the last of each kind of each fit.
        accounts: Account of each fit by its number; under None, the energy between fits.
        size: Size in bytes of the ledgers when they were read.
        count: Number of events.
        attempts: Number of starts.
        steps_by_fit: Highest number of optimizer steps of each fit.

    """

    events: list[Event] = field(default_factory=list)
    accounts: FitAccounts = field(default_factory=dict)
    size: int = 0
    count: int = 0
    attempts: int = 0
    steps_by_fit: dict[int, int] = field(default_factory=dict)

    @property
    def totals(self) -> Totals:
        """Totals of the run: the sums over its fits."""
        return sum_totals({number: account.totals for number, account in self.accounts.items()})

    @property
    def state(self) -> StateEvent | None:
        """The last event that changed the state of a fit."""
        return last_state_event(self.events)

    @property
    def states(self) -> dict[int, StateEvent]:
        """The last event that changed the state of each fit, by the number of the fit."""
        found = {
            event.fit or 0: event for event in self.events if isinstance(event, StateEvent) and not event.node_rank
        }
        return dict(sorted(found.items()))

    @property
    def ended(self) -> bool:
        """Whether the last process of the run ended without an exception."""
        kinds = (StateEvent, Ended)
        last = next((one for one in reversed(self.events) if isinstance(one, kinds) and not one.node_rank), None)
        return isinstance(last, Ended)

    @property
    def steps(self) -> int:
        """Highest number of optimizer steps, summed over the fits."""
        return sum(self.steps_by_fit.values())


def read_history(
    folder: Path, known: RunHistory | None = None, visit: Visitor | None = None, merge_samples: bool = False
) -> RunHistory:
    """Return the history of the run in a directory.

    The time is proportional to the number of events; ``benchmarks/ledger.py`` prints it.

    Args:
        folder: Run directory.
        known: The history at an earlier time; it is returned if nothing has been appended to the ledgers since.
        visit: Called with each event, after it has been added to the accounts, and with the accounts.
        merge_samples: Whether to read a long ledger faster, see ``iterate_ledger``; for reports.

    Raises:
        OSError: If a ledger cannot be read.

    """
    size = sum(file.stat().st_size for file in ledger_files(folder))
    if known is not None and size == known.size:
        return known
    accounts: FitAccounts = {}
    recent, steps, count, attempts = _RecentEvents(), dict[int, int](), 0, 0
    for event, length in iterate_ledger(folder, merge_samples):
        count, attempts = count + 1, max(attempts, event.attempt)
        fit = event.fit or 0
        steps[fit] = max(steps.get(fit, 0), event.global_step or 0)
        add_to_account(accounts, event)
        recent.add(event, length)
        if visit is not None:
            visit(event, accounts)
    return RunHistory(recent.events, accounts, size, count, attempts, steps)


class _RecentEvents:
    """The last events, and of older ones the last of each kind of each fit."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lengths: list[int] = []
        self._size = 0

    def add(self, event: Event, length: int) -> None:
        """Add an event whose line has ``length`` bytes."""
        self.events.append(event)
        self._lengths.append(length)
        self._size += length
        if self._size > _MAX_BYTES:
            self._drop()

    def _drop(self) -> None:
        kept, known, size = list[tuple[Event, int]](), set[Any](), 0
        for event, length in zip(reversed(self.events), reversed(self._lengths), strict=True):
            kind = _kind(event)
            if size < _MAX_BYTES // 2 or kind not in known:
                kept.append((event, length))
                known.add(kind)
                size += length
        kept.reverse()
        self.events[:] = [event for event, _ in kept]
        self._lengths = [length for _, length in kept]
        self._size = min(size, _MAX_BYTES // 2)


def _kind(event: Event) -> Any:
    """Return what distinguishes an event from later ones that replace it."""
    details: Any = None
    if isinstance(event, Decision):
        details = event.deadline is None, event.until is None, event.job is None
    elif isinstance(event, StateChanged):
        details = event.state
    elif isinstance(event, BudgetChecked):
        details = event.action, event.directory
    elif isinstance(event, Paused):
        details = event.until is None, event.seconds_per_batch is None
    return type(event), event.fit, event.node_rank, details
