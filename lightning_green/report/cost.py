"""The electricity cost of a run, and that of the same work without waiting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_green.ledger.segments import Segment
from lightning_green.planning.prices import PriceSeries
from lightning_green.report.energy_intervals import Array, EnergyIntervals
from lightning_green.utilities.units import JOULES_PER_KWH

KNOWN = 1e-9
"""Energy in kWh below which nothing is unknown."""


@dataclass(frozen=True)
class RunCost:
    """The electricity cost of a run.

    Args:
        amount: Cost of the energy whose price is known.
        run_now: Cost of the same work without waiting, of the part whose price at that time is known.
        unknown_kwh: Energy (after PUE) without a known price.
        run_now_unknown_kwh: Energy of the work without waiting that has no known price.
        currency: Currency of the amounts; may be empty.
        source: Source of the prices.

    Examples:
        >>> RunCost(amount=0.75, run_now=1.0).saving_pct
        25.0

    """

    amount: float
    run_now: float
    unknown_kwh: float = 0.0
    run_now_unknown_kwh: float = 0.0
    currency: str = ""
    source: str = ""

    @property
    def saving(self) -> float | None:
        """Cost that waiting saved, negative if it cost more; None if a price is unknown."""
        if max(self.unknown_kwh, self.run_now_unknown_kwh) > KNOWN:
            return None
        return self.run_now - self.amount + 0.0

    @property
    def saving_pct(self) -> float | None:
        """The saving in percent of the cost without waiting; None if that is not positive or a price is unknown."""
        saving = self.saving
        return None if saving is None or self.run_now <= 0.0 else 100.0 * saving / self.run_now

    def to_json(self) -> dict[str, Any]:
        """Return the cost as a JSON object; unknown values are None."""
        return {
            "amount": self.amount,
            "run_now": self.run_now,
            "saving": self.saving,
            "saving_pct": self.saving_pct,
            "unknown_kwh": self.unknown_kwh,
            "run_now_unknown_kwh": self.run_now_unknown_kwh,
            "currency": self.currency,
            "source": self.source,
        }


@dataclass(frozen=True)
class Rates:
    """What a report multiplies the energy of a run with, in addition to the recorded carbon intensity.

    Args:
        prices: Electricity prices, or None.
        currency: Currency of the prices, for display.
        market_factor: Emission factor of an electricity contract in gCO2e/kWh, or None.

    """

    prices: PriceSeries | None = None
    currency: str = ""
    market_factor: float | None = None


@dataclass(frozen=True)
class MarketEmissions:
    """Market-based emissions: all energy times the factor of a contract.

    Args:
        factor: Stated factor in gCO2e/kWh.
        gco2e: The emissions.

    """

    factor: float
    gco2e: float


def run_cost(energy: EnergyIntervals, segments: Iterable[Segment], prices: PriceSeries, currency: str = "") -> RunCost:
    """Return the cost of a run: the sum over its intervals of energy x PUE x mean price of the interval.

    Without waiting, the same work is done at full power and earlier by the time that waiting and throttling have
    delayed it, at the prices of that time; the energy of waiting is left out. See ``run_now_baselines``.

    Args:
        energy: Energy of the run.
        segments: Work of the run, of all nodes.
        prices: Prices.
        currency: Their currency, for display.

    """
    amount, unknown = energy_cost(*energy.facility(), prices)
    work = list(segments)
    starts = np.array([one.start - one.delay for one in work])
    ends = starts + np.array([(one.end - one.start) * one.speed for one in work])
    kwh = np.array([one.joules * one.speed / one.power for one in work]) / JOULES_PER_KWH
    run_now, run_now_unknown = energy_cost(starts, ends, kwh, prices)
    return RunCost(amount, run_now, unknown, run_now_unknown, currency, prices.source)


def energy_cost(starts: Array, ends: Array, kwh: Array, prices: PriceSeries) -> tuple[float, float]:
    """Return the cost of the energy whose price is known, and the other energy in kWh."""
    mean, known = prices.means(starts, ends)
    return float((kwh * mean * known).sum()), float((kwh * (1.0 - known)).sum())
