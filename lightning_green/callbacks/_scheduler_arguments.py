"""Checks of the arguments of ``CarbonScheduler``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, get_args

from lightning_green.grid.prices import build_prices
from lightning_green.planning import PriceSeries
from lightning_green.run.rewritten_files import recorded_prices, while_rewritten
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.validation import check_number

Pause = Literal["auto", "hold", "exit"]
Measured = Literal["measured"]


@dataclass(frozen=True)
class PlanArguments:
    """The scheduler's arguments about waiting, after their checks.

    Args:
        deadline: A duration from the run's first start, an aware time, or None.
        on_pause: ``"auto"``, ``"hold"`` or ``"exit"``.
        hold_power: Fraction of full power drawn while held, or ``"measured"``.
        resume_cost: Hours at full power of one exit and return, or ``"measured"``.
        min_saving: Fraction of run-now emissions.
        delay_price: gCO2e per hour.
        return_time: Hours from the start of the command to its first new step, or ``"measured"``.
        price: Electricity prices; None to minimize the emissions.
        carbon_price: Money per kg CO2e; used with ``price`` only.

    Raises:
        ValueError: If an argument is out of its range.

    """

    deadline: timedelta | datetime | None
    on_pause: Pause
    hold_power: float | Measured
    resume_cost: float | Measured
    min_saving: float
    delay_price: float
    return_time: float | Measured = "measured"
    price: PriceSeries | None = None
    carbon_price: float = 0.0


def check_plan_arguments(
    deadline: Any,
    on_pause: Any,
    hold_power: Any,
    resume_cost: Any,
    min_saving: Any,
    delay_price: Any,
    return_time: Any = "measured",
    price: Any = None,
    carbon_price: Any = None,
) -> PlanArguments:
    """Return the arguments checked and converted.

    Raises:
        ValueError: If one of them is out of its range.
        FileNotFoundError: If the file of the prices does not exist.
        TypeError: If the price is neither a number nor a path.

    """
    if on_pause not in get_args(Pause):
        raise ValueError(f'`on_pause` should be "auto", "hold" or "exit", got {on_pause!r}.')
    prices, carbon = check_prices(price, carbon_price)
    checked_delay = check_number("delay_price", delay_price, unit="gCO2e per hour")
    if prices is not None and not carbon and checked_delay:
        raise ValueError(
            f"`delay_price` is in gCO2e, which have no value with `carbon_price=0`, got {delay_price!r}. Remove it and "
            "set a deadline, or set `carbon_price`."
        )
    return PlanArguments(
        check_deadline(deadline),
        on_pause,
        "measured"
        if hold_power == "measured"
        else check_number("hold_power", hold_power, high=1.0, alternative='"measured"'),
        "measured"
        if resume_cost == "measured"
        else check_number("resume_cost", resume_cost, unit="hours", alternative='"measured"'),
        check_number("min_saving", min_saving, high=1.0),
        checked_delay,
        "measured" if return_time == "measured" else check_hours("return_time", return_time, alternative='"measured"'),
        prices,
        carbon,
    )


def check_prices(price: Any, carbon_price: Any) -> tuple[PriceSeries | None, float]:
    """Return the electricity prices, None without, and the money per kg CO2e.

    Raises:
        ValueError: If only one of them is given, or one is out of its range.
        FileNotFoundError: If the file of the prices does not exist.
        TypeError: If the price is neither a number nor a path.

    """
    if price is None and carbon_price is None:
        return None, 0.0
    if price is None:
        raise ValueError(f"`carbon_price` needs `price`, the price of electricity, got {carbon_price!r} without it.")
    if carbon_price is None:
        raise ValueError(
            "`price` needs `carbon_price`, the money per kg CO2e in the same currency: for example 0.1, or 0 to "
            "minimize the electricity cost alone."
        )
    carbon = check_number("carbon_price", carbon_price, unit="money per kg CO2e")
    found = while_rewritten(lambda: build_prices(price), recorded_prices, "the last recorded prices")
    return found, carbon


def check_hours(name: str, value: Any, alternative: str = "") -> float:
    """Return a duration in hours, given as a number of hours, as text such as ``"30min"`` or as a ``timedelta``.

    Raises:
        ValueError: If it is negative, not finite, or cannot be read.

    """
    if isinstance(value, (str, timedelta)):
        return parse_duration(value, name).total_seconds() / 3600.0
    return check_number(name, value, unit="hours", alternative=alternative)


def check_deadline(value: Any) -> timedelta | datetime | None:
    """Return a deadline as a duration or a time in UTC.

    A time may also be a string of ISO 8601, as in YAML.

    Raises:
        ValueError: If it has no time zone, cannot be read, or is a duration of nothing.

    """
    if isinstance(value, str):
        with suppress(ValueError):  # a duration is no time of ISO 8601
            value = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(
                f"`deadline` should have a time zone, got {value!r}; for example datetime.now(timezone.utc)."
            )
        return value.astimezone(timezone.utc)
    if value is None:
        return None
    duration = parse_duration(value, "deadline")
    if not duration:
        raise ValueError(f"`deadline` should be longer than nothing, got {value!r}.")
    return duration
