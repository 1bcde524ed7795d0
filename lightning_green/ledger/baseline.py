"""The run-now baseline: the emissions of the same run without waiting."""

from __future__ import annotations

from collections.abc import Callable

from lightning_green.ledger.totals import Totals
from lightning_green.utilities.units import JOULES_PER_KWH


def counterfactual_gco2e(totals: Totals, mean: Callable[[float, float], float | None]) -> float | None:
    """Return the emissions of the same run without waiting, in gCO2e.

    The recorded work is moved, in its order and at full power, to the first start and continues without a pause, on all
    nodes side by side. The energy of holding, exiting and resuming is left out: a run that does not wait has none.

    Args:
        totals: Totals of the run.
        mean: Returns the mean intensity in gCO2e/kWh between two times in seconds since the epoch, or None.

    Returns:
        Emissions in gCO2e; None if an intensity is unknown or no work is recorded.

    """
    if totals.first_start is None or not totals.segments:
        return None
    began, grams = totals.first_start, 0.0
    ended: dict[int, float] = {}
    attempt = 0
    for segment in sorted(totals.segments, key=lambda one: one.attempt):  # stable: the order of each node is kept
        if segment.attempt != attempt:  # all nodes of an attempt start together
            attempt, began, ended = segment.attempt, max([began, *ended.values()]), {}
        at = ended.get(segment.node, began)
        duration = (segment.end - segment.start) * segment.speed
        joules = segment.joules * segment.speed / segment.power
        intensity = mean(at, at + duration)
        if intensity is None:
            return None
        grams += joules / JOULES_PER_KWH * intensity
        ended[segment.node] = at + duration
    return grams


def saving_percent(actual: float, baseline: float) -> float:
    """Return the saving against run-now in percent; it is negative if waiting cost more than it saved.

    Examples:
        >>> saving_percent(90.0, 100.0)
        10.0

    """
    return 0.0 if baseline == 0.0 else 100.0 * (baseline - actual) / baseline
