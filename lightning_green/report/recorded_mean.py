"""Intensities of the grid signals that a run has recorded at its planned exits."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone

from lightning_green.grid.recorded import grid_from_record, spec_digest
from lightning_green.grid.signal import GridSignal
from lightning_green.ledger.baseline import MeanAt
from lightning_green.ledger.events import Event, Paused
from lightning_green.ledger.recorded_intensity import Place

_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, ImportError)
"""Errors of a record, which may contain anything, and of files that it names."""


def recorded_mean(events: Iterable[Event]) -> MeanAt | None:
    """Return a function with the intensities during planned exits, which the ledger itself does not contain.

    Only sources of this package are used, and no request is sent: traces, files and typical days contain all times, and
    live sources only those that are in the cache.

    Args:
        events: Events of the run.

    Returns:
        The function; None if the run has recorded no signal.

    """
    signals: dict[Place, GridSignal] = {}
    for spec in {repr(event.grid): event.grid for event in events if isinstance(event, Paused)}.values():
        if spec is not None:
            with suppress(*_ERRORS):
                grid = grid_from_record(spec)
                signals[Place(str(grid.kind), grid.zone, grid.source, spec_digest(grid.spec()))] = grid

    def mean(place: Place, start: float, end: float) -> float | None:
        with suppress(*_ERRORS):
            if place in signals:
                first, last = (datetime.fromtimestamp(at, timezone.utc) for at in (start, end))
                return signals[place].measured_mean(first, last)
        return None

    return mean if signals else None
