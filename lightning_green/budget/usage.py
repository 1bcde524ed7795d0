"""What a run has used, from its ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_green.ledger.account import FitAccounts, add_to_account
from lightning_green.ledger.event_fields import read_float
from lightning_green.ledger.events import Event, StateEvent
from lightning_green.ledger.ledger import iterate_ledger, ledger_files
from lightning_green.planning.prices import PriceSeries
from lightning_green.report.cost import energy_cost
from lightning_green.report.energy_intervals import EnergyIntervals
from lightning_green.utilities.units import JOULES_PER_KWH

_NUMBERS = ("kwh", "cost", "unknown_intensity_kwh", "priced_kwh", "unknown_price_kwh")
_MAX_KINDS = 100


@dataclass(frozen=True)
class Usage:
    """Energy, emissions and cost of a run, or of several.

    Args:
        kwh: Energy of the devices in kWh, as ``energy/kwh``.
        gco2e: Emissions by kind of carbon intensity in gCO2e, after PUE. Those of different kinds are never added up.
        cost: Electricity cost, after PUE, of the energy whose price is known.
        unknown_intensity_kwh: Energy after PUE whose carbon intensity is unknown; its emissions are not included.
        priced_kwh: Energy after PUE whose price is known.
        unknown_price_kwh: Energy after PUE whose price is unknown; its cost is not included.
        is_measured: Whether sensors have measured all of the energy.

    """

    kwh: float = 0.0
    gco2e: Mapping[str, float] = field(default_factory=dict)
    cost: float = 0.0
    unknown_intensity_kwh: float = 0.0
    priced_kwh: float = 0.0
    unknown_price_kwh: float = 0.0
    is_measured: bool = True

    def __add__(self, other: Usage) -> Usage:
        kinds = {kind: self.gco2e.get(kind, 0.0) + other.gco2e.get(kind, 0.0) for kind in {**self.gco2e, **other.gco2e}}
        sums = {name: getattr(self, name) + getattr(other, name) for name in _NUMBERS}
        return Usage(**sums, gco2e=kinds, is_measured=self.is_measured and other.is_measured)

    def to_json(self) -> dict[str, Any]:
        """Return the usage as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Usage:
        """Return the usage that ``to_json`` has written.

        Raises:
            ValueError: If a value is missing, not a number, or out of its range.

        """
        kinds = record.get("gco2e")
        if not isinstance(kinds, dict) or len(kinds) > _MAX_KINDS or not isinstance(record.get("is_measured"), bool):
            raise ValueError("`gco2e` should be an object and `is_measured` should be true or false")
        numbers = {name: read_float(record.get(name)) for name in _NUMBERS}  # a cost may be negative
        if numbers["kwh"] < 0.0:
            raise ValueError(f"`kwh` should be 0 or more, got {numbers['kwh']}")
        grams = {str(kind): read_float(value) for kind, value in kinds.items()}
        return cls(**numbers, gco2e=grams, is_measured=record["is_measured"])


class LedgerUsage:
    """Adds up the events of a run as its ledger is read.

    Args:
        prices: Electricity prices; None if they are unknown.

    Attributes:
        state: Name of the last event that changed the state of a fit, such as ``"started"``; empty before the first.

    """

    def __init__(self, prices: PriceSeries | None = None) -> None:
        self._prices = prices
        self._accounts: FitAccounts = {}
        self._energy = EnergyIntervals()
        self._cost = self._priced = self._unknown = 0.0
        self._kept = 0.0
        self.state = ""

    def keep(self, known: Usage) -> None:
        """Keep the cost that was computed before, so that other prices change only that of later energy.

        Call it before the first ``read``. If no price was known, all energy is priced.

        Args:
            known: Usage of the same run at an earlier time.

        """
        if known.priced_kwh > 0.0:
            self._cost, self._priced, self._unknown = known.cost, known.priced_kwh, known.unknown_price_kwh
            self._kept = known.priced_kwh + known.unknown_price_kwh

    def add(self, event: Event) -> None:
        """Add the next event."""
        add_to_account(self._accounts, event)
        self._energy.add(event)
        if isinstance(event, StateEvent) and not event.node_rank:
            self.state = event.name

    def read(self, has_ended: bool = False) -> Usage:
        """Return the usage up to the last event.

        Args:
            has_ended: Whether no process of the run writes any more, so that the energy of other nodes after the last
                event of rank 0 is included in the emissions.

        """
        self._add_cost()
        kwh, unpriced, kinds, measured = 0.0, 0.0, dict[str, float](), True
        for number, account in self._accounts.items():
            if number is None:  # the energy between fits, which is in no total
                continue
            if has_ended:
                account.settle()
            totals = account.totals
            kwh += totals.kwh
            unpriced += totals.unpriced_joules / JOULES_PER_KWH
            measured = measured and totals.is_measured
            for kind, grams in totals.gco2e.items():
                kinds[kind] = kinds.get(kind, 0.0) + grams
        return Usage(kwh, kinds, self._cost, unpriced, self._priced, self._unknown, measured)

    def _add_cost(self) -> None:
        starts, ends, kwh = self._energy.facility()
        self._energy.by_component.clear()
        order = np.argsort(ends, kind="stable")
        starts, ends, kwh = starts[order], ends[order], kwh[order]
        kept = np.clip(self._kept - (np.cumsum(kwh) - kwh), 0.0, kwh)  # the first energy, whose cost is known
        self._kept = max(0.0, self._kept - float(kept.sum()))
        kwh = kwh - kept
        if self._prices is None:
            self._unknown += float(kwh.sum())
        else:
            amount, unknown = energy_cost(starts, ends, kwh, self._prices)
            self._cost += amount
            self._priced += float(kwh.sum()) - unknown
            self._unknown += unknown


def usage_of(events: Iterable[Event], prices: PriceSeries | None = None, known: Usage | None = None) -> LedgerUsage:
    """Return the usage of events in order; the cost in ``known`` is kept."""
    found = LedgerUsage(prices)
    if known is not None:
        found.keep(known)
    for event in events:
        found.add(event)
    return found


def read_run_usage(run_dir: Path, prices: PriceSeries | None = None, known: Usage | None = None) -> LedgerUsage:
    """Return the usage of the run in a directory, over all its fits, restarts and nodes.

    Args:
        run_dir: The directory.
        prices: Electricity prices; None if they are unknown.
        known: Usage at an earlier time, whose cost is kept.

    Raises:
        OSError: If a ledger cannot be read.

    """
    return usage_of((event for event, _ in iterate_ledger(run_dir, merge_samples=prices is None)), prices, known)


def ledger_size(run_dir: Path) -> int:
    """Return the size of the ledgers of a run in bytes.

    Raises:
        OSError: If they cannot be read.

    """
    return sum(file.stat().st_size for file in ledger_files(run_dir))
