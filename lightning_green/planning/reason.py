"""The reason of a plan as text for users."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from lightning_green.planning.plans import Slot
from lightning_green.utilities.quantities import format_money, short_grams

_ESTIMATED = "some prices are estimates"


def format_time(time: datetime, now: datetime) -> str:
    """Return the time of day in UTC, with the date unless it is that of ``now``."""
    return time.strftime("%H:%M UTC" if time.date() == now.date() else "%d %b %H:%M UTC")


def format_hours(value: float) -> str:
    """Return a number of hours in minutes or hours.

    Examples:
        >>> format_hours(0.25), format_hours(3.0), format_hours(3.46)
        ('15 min', '3 h', '3.5 h')

    """
    if value < 0.995:
        return f"{value * 60:.0f} min"
    return f"{round(value, 1):g} h"


@dataclass(frozen=True)
class CostChange:
    """The expected electricity cost of a plan and of run-now.

    Args:
        planned: Cost of the plan in money per kW of full power.
        run_now: Cost of run-now, in the same unit.
        full_kw: Full power of the job in kW, PUE included; None if it is not known.
        is_estimated: Whether some of the prices are estimates.

    Examples:
        >>> print(CostChange(0.89, 1.2, full_kw=2.0))
        electricity cost 2.40 -> 1.78 (-25.8%)
        >>> print(CostChange(0.89, 1.2, is_estimated=True))
        electricity cost -25.8% (some prices are estimates)

    """

    planned: float
    run_now: float
    full_kw: float | None = None
    is_estimated: bool = False

    def __str__(self) -> str:
        # A percentage of an income is not defined.
        percent = f"{self.planned / self.run_now - 1:+.1%}" if self.run_now > 0 else ""
        if self.full_kw is None and percent:
            return f"electricity cost {percent}" + (f" ({_ESTIMATED})" if self.is_estimated else "")
        scale, unit = (1.0, " per kW of full power") if self.full_kw is None else (self.full_kw, "")
        details = ", ".join(one for one in (percent, _ESTIMATED if self.is_estimated else "") if one)
        amounts = f"{format_money(scale * self.run_now)} -> {format_money(scale * self.planned)}{unit}"
        return f"electricity cost {amounts}" + (f" ({details})" if details else "")


@dataclass(frozen=True)
class Saving:
    """The expected saving of a plan relative to run-now.

    Args:
        share: Saving as a fraction of run-now; negative if the plan emits more.
        std: Standard deviation of ``share``, or None.
        run_now_grams: Emissions of run-now in gCO2e; None if the power of the job is not known.
        marginal: Whether the emissions are those of a marginal signal.
        cost: Change of the electricity cost; None without prices.

    Examples:
        >>> print(Saving(0.162, 0.02, 2134.5))
        saves about 346 g of 2.1 kg (16.2% ± 2.0%)
        >>> print(Saving(0.162))
        saves about 16.2%

    """

    share: float
    std: float | None = None
    run_now_grams: float | None = None
    marginal: bool = False
    cost: CostChange | None = None

    def __str__(self) -> str:
        return self._emissions() + ("" if self.cost is None else f"; {self.cost}")

    def _emissions(self) -> str:
        verb, share = ("saves", self.share) if self.share >= 0 else ("emits", -self.share)
        percent = f"{share:.1%}" + (f" ± {self.std:.1%}" if self.std else "")
        more, kind = "" if self.share >= 0 else " more", ", marginal" if self.marginal else ""
        if self.run_now_grams is None:
            return f"{verb} about {percent}{more}{kind}"
        grams, total = short_grams(share * self.run_now_grams), short_grams(self.run_now_grams)
        return f"{verb} about {grams}{more or f' of {total}'} ({percent}{kind})"


def mean_work_intensity(slots: tuple[Slot, ...]) -> float:
    """Return the mean carbon intensity of the energy of the work in a plan, in gCO2e/kWh; NaN without work."""
    work = [(slot.level.power * (slot.end - slot.start).total_seconds(), slot) for slot in slots if slot.level]
    energy = sum(energy for energy, _ in work)
    return sum(energy * (slot.intensity or 0.0) for energy, slot in work) / energy if energy else math.nan


def format_intensities(planned: float, run_now: float) -> str:
    """Return the mean intensities of the remaining work under run-now and under a plan.

    Examples:
        >>> format_intensities(318.4, 412.0)
        '412 -> 318 gCO2e/kWh for the remaining work'

    """
    digits = 0 if f"{planned:.0f}" != f"{run_now:.0f}" else 1
    return f"{run_now:.{digits}f} -> {planned:.{digits}f} gCO2e/kWh for the remaining work"


def pause_reason(
    slots: tuple[Slot, ...],
    now: datetime,
    saving: Saving,
    run_now: float,
    end: datetime,
    slack: float | None,
) -> str:
    """Return why the plan begins with a pause.

    Args:
        slots: Slots of the plan; the first is a pause.
        now: Time of planning.
        saving: Expected saving.
        run_now: Mean carbon intensity of the work under run-now, in gCO2e/kWh.
        end: Expected end of the work.
        slack: Hours between the end and the deadline; None without a deadline.

    """
    first = slots[0]
    work = next((slot for slot in slots if slot.action in ("run", "throttle")), slots[-1])
    action = "Hold" if first.action == "hold" else "Exit"
    finish = f"Ends at {format_time(end, now)}"
    if slack is not None:
        finish += f", {format_hours(max(0.0, slack))} before the deadline"
    return (
        f"{action} until {format_time(work.start, now)}: {format_intensities(mean_work_intensity(slots), run_now)}, "
        f"{saving}. {finish}."
    )


def run_reason(slots: tuple[Slot, ...], now: datetime, saving: Saving, run_now: float) -> str:
    """Return why the plan begins with work. The arguments are those of `pause_reason`."""
    first = slots[0]
    start = "Run now" if first.action == "run" else f"Run at {first.level} (power:speed)"
    pause = next((slot for slot in slots if slot.action in ("hold", "exit")), None)
    if pause is not None:
        return (
            f"{start} and {pause.action} at {format_time(pause.start, now)}: "
            f"{format_intensities(mean_work_intensity(slots), run_now)}, {saving}."
        )
    if {(slot.action, slot.level) for slot in slots} == {("run", first.level)}:
        if first.price is not None:
            price = format_money(first.price)
            now_at = f"at {first.intensity:.0f} gCO2e/kWh and an electricity price of {price} per kWh"
            return f"{start}: {now_at} no pause before the deadline reduces the cost of electricity and carbon."
        return f"{start}: at {first.intensity:.0f} gCO2e/kWh no pause before the deadline reduces emissions."
    return f"{start} at {first.intensity:.0f} gCO2e/kWh without a pause: {saving}."
