"""Checks of the arguments of ``EnergyBudget``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from lightning_green.budget.directory import BudgetDirectory, BudgetError
from lightning_green.budget.limits import Limits
from lightning_green.budget.watch import BudgetWatch
from lightning_green.callbacks._budget_check import BudgetCheck, run_id_of, watch_memory
from lightning_green.grid.prices import build_prices
from lightning_green.planning import PriceSeries
from lightning_green.run.fit import Fit
from lightning_green.run.rewritten_files import is_automatic_restart, recorded_prices, while_rewritten
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.validation import check_choice, check_number

OnExceeded = Literal["stop", "pause", "throttle"]
_SHORTEST = timedelta(seconds=0.1)


@dataclass(frozen=True)
class BudgetArguments:
    """The arguments of a budget after their checks; ``EnergyBudget`` describes each.

    Args:
        limits: The limits; empty for those of the directory.
        directory: Absolute path of the directory that runs share, or None.
        warn_at: Fraction of a limit at which to warn.
        on_exceeded: What happens when a limit is reached.
        prices: Electricity prices, or None.
        check_every: Time between two checks.

    """

    limits: Limits
    directory: Path | None
    warn_at: float
    on_exceeded: OnExceeded
    prices: PriceSeries | None
    check_every: timedelta

    def make_check(self, fit: Fit) -> BudgetCheck:
        """Return the checks of a fit, on rank 0.

        Raises:
            BudgetError: If the directory has other limits or none, or a limit needs a grid or a price. A start that the
                supervisor makes by itself continues with a warning instead.

        """
        session = fit.session
        kind = None if session.grid is None else str(session.grid.kind)
        directory = None if self.directory is None else BudgetDirectory(self.directory, updates=True)
        restarted = is_automatic_restart()
        watch = BudgetWatch(self.limits, run_id_of(session, restarted), kind, self.prices, directory)
        limits, missing = watch.status.limits, list[str]()
        if limits.gco2e is not None and session.grid is None:
            missing.append("A budget in gCO2e needs `grid`, for example EnergyBudget(gco2e=500, grid='typical:DE').")
        if limits.cost is not None and self.prices is None:
            owner = "budget" if self.directory is None else f"budget in {self.directory}"
            missing.append(f"The {owner} limits the cost. Give `price`, the price per kWh.")
        if missing and not restarted:
            raise BudgetError(missing[0])
        problems = [
            f"{line} Until then, the run continues, and its energy does not count for this limit." for line in missing
        ]
        if watch.conflict is not None:
            problems.insert(0, watch.conflict)
        watch_memory(session, watch)
        return BudgetCheck(fit, watch, self.warn_at, self.check_every.total_seconds(), self.prices, problems)


def check_budget_arguments(
    limits: Limits, directory: Any, warn_at: Any, on_exceeded: Any, price: Any, check_every: Any
) -> BudgetArguments:
    """Return the arguments checked and converted.

    Raises:
        ValueError: If one of them is out of its range, or there is neither a limit nor a directory.
        FileNotFoundError: If the file of the prices does not exist.
        TypeError: If one of them is of a wrong type.

    """
    if not limits and directory is None:
        raise ValueError("`EnergyBudget` needs a limit: `kwh`, `gco2e` or `cost`, or a `directory` that has one.")
    if directory is not None and (not isinstance(directory, (str, Path)) or not str(directory).strip()):
        raise TypeError(f"`directory` should be a path or None, got {directory!r}.")
    if limits.cost is not None and price is None:
        raise ValueError(f"`cost` needs `price`, the price of electricity per kWh, got {limits.cost!r} without it.")
    every = parse_duration(check_every, "check_every")
    if every < _SHORTEST:
        raise ValueError(f"`check_every` should be at least 0.1 s, got {check_every!r}.")
    check_choice("on_exceeded", on_exceeded, get_args(OnExceeded))
    return BudgetArguments(
        limits,
        None if directory is None else Path(directory).expanduser().absolute(),
        check_number("warn_at", warn_at, high=1.0, above_low=True),
        on_exceeded,
        None
        if price is None
        else while_rewritten(lambda: build_prices(price), recorded_prices, "the last recorded prices"),
        every,
    )
