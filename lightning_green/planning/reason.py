"""One sentence of why, for people."""

from __future__ import annotations

from datetime import datetime

from lightning_green.planning.plan import Slot


def clock(time: datetime, now: datetime) -> str:
    """Return ``time`` as people say it: the time of day, with the date where it is another one."""
    return time.strftime("%H:%M UTC" if time.date() == now.date() else "%d %b %H:%M UTC")


def hours(value: float) -> str:
    """Return a number of hours for people.

    Example::

        >>> hours(0.25), hours(3.0), hours(3.46)
        ('15 min', '3 h', '3.5 h')

    """
    if value < 0.995:
        return f"{value * 60:.0f} min"
    return f"{round(value, 1):g} h"


def saves(saving: float, std: float | None) -> str:
    """Return the saving in words, with its uncertainty where that is known."""
    margin = f" (give or take {std:.1%})" if std else ""
    return f"{saving:.1%} less than running now{margin}"


def pause(
    slots: tuple[Slot, ...], now: datetime, saving: float, std: float | None, end: datetime, slack: float | None
) -> str:
    """Return why the plan begins with a pause."""
    first = slots[0]
    after = next((slot for slot in slots if slot.action in ("run", "throttle")), slots[-1])
    word = "Hold" if first.action == "hold" else "Exit"
    finish = f"; done at {clock(end, now)}"
    if slack is not None:
        finish += f", {hours(max(0.0, slack))} before the deadline"
    return (
        f"{word} until {clock(after.start, now)}: {first.intensity:.0f} gCO2e/kWh now, {after.intensity:.0f} expected "
        f"then; the plan emits {saves(saving, std)}{finish}."
    )


def go(slots: tuple[Slot, ...], now: datetime, saving: float, std: float | None) -> str:
    """Return why the plan begins with work."""
    first = slots[0]
    power = "Run now" if first.action == "run" else f"Run at {first.level} (power:speed)"
    later = next((slot for slot in slots if slot.action in ("hold", "exit")), None)
    if later is not None:
        word = "hold" if later.action == "hold" else "exit"
        return (
            f"{power} at {first.intensity:.0f} gCO2e/kWh and {word} at {clock(later.start, now)} at "
            f"{later.intensity:.0f} gCO2e/kWh; the plan emits {saves(saving, std)}."
        )
    changes = {(slot.action, slot.level) for slot in slots}
    if changes == {("run", first.level)}:
        return f"{power}: at {first.intensity:.0f} gCO2e/kWh no pause before the deadline would save anything."
    return f"{power} at {first.intensity:.0f} gCO2e/kWh; the plan emits {saves(saving, std)}, without a pause."
