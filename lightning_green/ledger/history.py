"""The history of a run: its events up to now and their totals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lightning_green.ledger.events import Ended, Event, StateEvent
from lightning_green.ledger.ledger import last_state_event, ledger_files, read_ledger
from lightning_green.ledger.totals import FitAccounts, Totals, account_by_fit, sum_totals


@dataclass(frozen=True)
class RunHistory:
    """What the ledgers of a run contain up to now.

    Args:
        events: The events in their order.
        accounts: Account of each fit by its number; under None, the energy between fits.
        size: Size in bytes of the ledgers when they were read.

    """

    events: list[Event] = field(default_factory=list)
    accounts: FitAccounts = field(default_factory=dict)
    size: int = 0

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
    def attempts(self) -> int:
        """Number of starts."""
        return max((event.attempt for event in self.events), default=0)

    @property
    def steps(self) -> int:
        """Highest number of optimizer steps, summed over the fits."""
        most: dict[int, int] = {}
        for event in self.events:
            most[event.fit or 0] = max(most.get(event.fit or 0, 0), event.global_step or 0)
        return sum(most.values())


def read_history(folder: Path, known: RunHistory | None = None) -> RunHistory:
    """Return the history of the run in a directory.

    The time is proportional to the number of events; ``benchmarks/ledger.py`` prints it.

    Args:
        folder: Run directory.
        known: The history at an earlier time; it is returned if nothing has been appended to the ledgers since.

    Raises:
        OSError: If a ledger cannot be read.

    """
    size = sum(file.stat().st_size for file in ledger_files(folder))
    if known is not None and size == known.size:
        return known
    events = read_ledger(folder)
    return RunHistory(events, account_by_fit(events), size)
