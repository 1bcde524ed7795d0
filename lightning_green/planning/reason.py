"""The reason of a plan as text for users."""

from __future__ import annotations

import math
from datetime import datetime

from lightning_green.planning.plans import Slot


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


def format_saving(saving: float, std: float | None) -> str:
    """Return the saving relative to run-now, with its standard deviation if known."""
    margin = f" (± {std:.1%})" if std else ""
    return f"{saving:.1%} less than running now{margin}"


def mean_work_intensity(slots: tuple[Slot, ...]) -> float:
    """Return the mean carbon intensity of the energy of the work in a plan, in gCO2e/kWh; NaN without work."""
    work = [(slot.level.power * (slot.end - slot.start).total_seconds(), slot) for slot in slots if slot.level]
    energy = sum(energy for energy, _ in work)
    return sum(energy * (slot.intensity or 0.0) for energy, slot in work) / energy if energy else math.nan


def format_intensities(planned: float, run_now: float) -> str:
    """Return the mean intensities of the remaining work under a plan and run-now.

    Examples:
        >>> format_intensities(318.4, 412.0)
        'the remaining work runs at 318 instead of 412 gCO2e/kWh on average'

    """
    digits = 0 if f"{planned:.0f}" != f"{run_now:.0f}" else 1
    return f"the remaining work runs at {planned:.{digits}f} instead of {run_now:.{digits}f} gCO2e/kWh on average"


def pause_reason(
    slots: tuple[Slot, ...],
    now: datetime,
    saving: float,
    std: float | None,
    run_now: float,
    end: datetime,
    slack: float | None,
) -> str:
    """Return why the plan begins with a pause.

    Args:
        slots: Slots of the plan; the first is a pause.
        now: Time of planning.
        saving: Expected saving as a fraction of run-now.
        std: Standard deviation of the saving, or None.
        run_now: Mean carbon intensity of the work under run-now, in gCO2e/kWh.
        end: Expected end of the work.
        slack: Hours between the end and the deadline; None without a deadline.

    """
    first = slots[0]
    work = next((slot for slot in slots if slot.action in ("run", "throttle")), slots[-1])
    action = "Hold" if first.action == "hold" else "Exit"
    finish = f"finishes at {format_time(end, now)}"
    if slack is not None:
        finish += f", {format_hours(max(0.0, slack))} before the deadline"
    return (
        f"{action} until {format_time(work.start, now)}: {format_intensities(mean_work_intensity(slots), run_now)}. "
        f"The plan emits {format_saving(saving, std)} and {finish}."
    )


def run_reason(slots: tuple[Slot, ...], now: datetime, saving: float, std: float | None, run_now: float) -> str:
    """Return why the plan begins with work. The arguments are those of `pause_reason`."""
    first = slots[0]
    start = "Run now" if first.action == "run" else f"Run at {first.level} (power:speed)"
    pause = next((slot for slot in slots if slot.action in ("hold", "exit")), None)
    if pause is not None:
        return (
            f"{start} and {pause.action} at {format_time(pause.start, now)}: "
            f"{format_intensities(mean_work_intensity(slots), run_now)}. The plan emits {format_saving(saving, std)}."
        )
    if {(slot.action, slot.level) for slot in slots} == {("run", first.level)}:
        return f"{start}: at {first.intensity:.0f} gCO2e/kWh no pause before the deadline reduces emissions."
    return f"{start} at {first.intensity:.0f} gCO2e/kWh without a pause. The plan emits {format_saving(saving, std)}."
