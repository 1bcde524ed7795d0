"""Plans as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from lightning_green.cli.messages import print_line
from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.live import PolledSignal
from lightning_green.grid.signal import GridSignal
from lightning_green.planning import Plan, Slot


@contextmanager
def refreshed(signal: GridSignal, now: datetime, *, force: bool = False) -> Iterator[None]:
    """Request the present values on the calling thread, print failures, and close the signal at the end."""
    try:
        if isinstance(signal, (PolledSignal, ChainSignal)):
            signal.refresh(now, force=force)
            _print_messages(signal)
        yield
    finally:
        _print_messages(signal)
        signal.close()


def plan_lines(answer: Plan) -> Iterator[str]:
    """Yield a line for each action of a plan, one for its emissions, and its notes."""
    for slots in _joined(answer):
        first, last = slots[0], slots[-1]
        hours = (last.end - first.start).total_seconds() / 3600
        emitted = sum(slot.gco2e_per_kw or 0.0 for slot in slots)
        known = [slot for slot in slots if slot.intensity is not None]
        weight = sum((slot.end - slot.start).total_seconds() for slot in known)
        mean = sum((slot.intensity or 0.0) * (slot.end - slot.start).total_seconds() for slot in known)
        figures = f"at {mean / weight:4.0f} gCO2e/kWh  {emitted:7.0f} gCO2e per kW" if weight else "intensity unknown"
        yield f"  {first.start:%a %H:%M} to {last.end:%a %H:%M}  {first.action:<4} {hours:5.1f} h  {figures}"
    if math.isfinite(answer.gco2e_per_kw):
        yield (
            f"Emits {answer.gco2e_per_kw:.0f} gCO2e per kW of full power, "
            f"running now {answer.run_now_gco2e_per_kw:.0f}: a saving of "
            f"{answer.saving:.1%}. Done at {answer.end:%a %H:%M} UTC."
        )
    yield from answer.notes


def plan_as_json(answer: Plan) -> dict[str, Any]:
    """Return a plan as JSON data."""
    known = math.isfinite(answer.gco2e_per_kw)
    return {
        "reason": answer.reason,
        "slots": [
            {"start": s[0].start.isoformat(), "end": s[-1].end.isoformat(), "action": s[0].action}
            for s in _joined(answer)
        ],
        "gco2e_per_kw": answer.gco2e_per_kw if known else None,
        "run_now_gco2e_per_kw": answer.run_now_gco2e_per_kw if known else None,
        "saving": answer.saving if math.isfinite(answer.saving) else None,
        "end": answer.end.isoformat(),
        "late_hours": answer.late_hours,
    }


def _joined(answer: Plan) -> list[list[Slot]]:
    groups: list[list[Slot]] = []
    for slot in answer.slots:
        if groups and groups[-1][-1].action == slot.action:
            groups[-1].append(slot)
        else:
            groups.append([slot])
    return groups


def _print_messages(signal: GridSignal) -> None:
    for message in signal.pop_messages():
        print_line(message)
