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
        epochs, batches = record["epochs"] or 1, int(min(record["batches"], 1000))
        within = batches > 1 and not epochs_only
        if place > 0:
            stops.add(Stop(number, 0, batches // 2) if within else Stop(number, 1, 0))
            continue
        between = {1, *changes[:_MAX_CHANGES]}
        stops |= {Stop(number, epoch, 0) for epoch in between}
        if epochs_only:
            stops.add(Stop(number, max(between) + 1, 0, kill=True))
        if within:
            stops |= {Stop(number, epoch, 1) for epoch in between}
            stops.add(Stop(number, 0, batches // 2))
        if within and batches > 2:
            stops.add(Stop(number, min(1, epochs - 1), min(batches - 1, batches // 2 + 1), kill=True))
    return tuple(sorted(stop for stop in stops if stop.epoch < (fits[stop.fit]["epochs"] or 1)))
