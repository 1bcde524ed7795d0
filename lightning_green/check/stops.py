"""Where a check stops a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_green.check.job import Stop

_MAX_CHANGES = 3
_FURTHER_FITS = 2


def choose_stops(fits: Mapping[int, Mapping[str, Any]], changes: Sequence[int], epochs_only: bool) -> tuple[Stop, ...]:
    """Return the stops of one run, in order: few, because each of them costs a start of the script.

    The first fit is stopped in the middle of an epoch, between two epochs, after the first batch of an epoch, before
    and after each scheduled change, and killed in a validation; the next two fits in the middle of their first epoch.

    Args:
        fits: The ``started`` records of an uninterrupted run by the number of the fit.
        changes: Epochs at which the training changes.
        epochs_only: Whether to stop between epochs only.

    """
    stops: set[Stop] = set()
    for place, (number, record) in enumerate(sorted(fits.items())[: 1 + _FURTHER_FITS]):
        epochs, batches = record["epochs"] or 1, min(record["batches"], 1000)
        middle = batches > 1
        if place > 0:
            stops.add(Stop(number, 0, batches // 2) if middle and not epochs_only else Stop(number, 1, 0))
            continue
        between = {1, *(epoch for epoch in [*changes][:_MAX_CHANGES])}
        if epochs_only:
            between |= {2}
        stops |= {Stop(number, epoch, 0) for epoch in between if epoch < epochs}
        if epochs_only:
            stops |= {Stop(number, epochs - 1, 0, kill=True)} if epochs > 2 else set()
        elif middle:
            stops |= {Stop(number, epoch, 1) for epoch in between if epoch < epochs}
            stops.add(Stop(number, 0, int(batches) // 2))
            killed = min(1, epochs - 1)
            if batches > 2:
                stops.add(Stop(number, killed, min(int(batches) - 1, int(batches) // 2 + 1), kill=True))
    return tuple(sorted(stop for stop in stops if stop.epoch > 0 or stop.batch > 0))
