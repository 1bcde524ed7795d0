"""The field of a fit in the progress bar: state, intensity, emissions so far, and the next planned change."""

from __future__ import annotations

import time
from collections.abc import Callable

from lightning_green.planning import Plan
from lightning_green.planning.reason import format_time
from lightning_green.run.figures import emissions_so_far
from lightning_green.run.recorder import Recorder, utc
from lightning_green.utilities.quantities import short_energy, short_grams
from lightning_green.utilities.units import JOULES_PER_KWH

FIELD = "green"
"""Name of the field."""

_SECONDS = 1.0


class ProgressField:
    """Returns the text of the field. It is computed at most once a second, and when the state changes.

    Args:
        recorder: Recorder of the fit.
        plan: Returns the last plan of the fit, or None.

    """

    def __init__(self, recorder: Recorder, plan: Callable[[], Plan | None]) -> None:
        self._recorder, self._plan = recorder, plan
        self._text, self._state, self._next = "", "", 0.0

    def text(self) -> str:
        """Return the text, for example ``"running 212 g/kWh, 1.3 kg, exit 13:40 UTC"``."""
        now, state = time.monotonic(), self._recorder.status.state  # real time, also on a simulated clock
        if now < self._next and state == self._state:
            return self._text
        if self._recorder.lock.acquire(blocking=False):  # another thread may be writing an event; keep the text then
            try:
                self._text = describe_progress(self._recorder, self._plan())
            finally:
                self._recorder.lock.release()
            self._next, self._state = now + _SECONDS, state
        return self._text


def describe_progress(recorder: Recorder, plan: Plan | None) -> str:
    """Return state, intensity, emissions so far and the next change of a fit in a few words.

    Without a carbon intensity, the energy replaces the emissions. Values of a marginal signal are labeled.
    """
    now, since_last = recorder.clock.time(), recorder.since_last()
    marginal = " marginal" if recorder.grid is not None and str(recorder.grid.kind).startswith("marginal") else ""
    reading = None if recorder.grid is None else recorder.grid.intensity(utc(now))
    parts = [recorder.status.state + ("" if reading is None else f" {reading.value:.0f} g/kWh{marginal}")]
    grams = emissions_so_far(recorder, now, since_last)
    if grams is not None:
        parts.append(short_grams(grams) + marginal)
    elif recorder.is_energy_known():
        parts.append(short_energy(recorder.totals.kwh + since_last / JOULES_PER_KWH))
    change = None if plan is None else plan.next_change
    if change is not None and change.start.timestamp() > now:
        parts.append(f"{change.action} {format_time(change.start, utc(now))}")
    return ", ".join(parts)
