"""The run-now baseline: the emissions of the same run without waiting."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from lightning_green.ledger.recorded_intensity import Known, Place
from lightning_green.ledger.segments import Segment
from lightning_green.ledger.totals import Totals
from lightning_green.utilities.units import JOULES_PER_KWH

MeanAt = Callable[[Place, float, float], float | None]
"""Returns the mean intensity of a place between two times in seconds since the epoch, or None."""


@dataclass(frozen=True)
class Baseline:
    """Emissions of a run without waiting, for the part of its work whose intensity at that time is known.

    Args:
        grams: Emissions of that part without waiting, in gCO2e.
        actual: Emissions that compare with it: of the same part, and of all holding, exiting and resuming.
        known_share: Fraction of the work's energy that the part has.
        saving_std_pct: Standard deviation of ``saving_pct``; None if the intensity is a long-run mean, whose error is
            unknown.

    """

    grams: float
    actual: float
    known_share: float
    saving_std_pct: float | None

    @property
    def saving_pct(self) -> float | None:
        """The saving in percent; it is negative if waiting cost more than it saved. None without emissions."""
        return saving_percent(self.actual, self.grams)


def run_now_baselines(totals: Totals, mean: MeanAt | None = None) -> dict[str, Baseline]:
    """Return the emissions of the same run without waiting, by kind of signal.

    The recorded work is done at full power, and earlier by the time that was spent before it with holding, exiting and
    resuming. The energy of these is left out: a run that does not wait has none. Interruptions that nobody planned,
    such as a kill or the sleep of the machine, and the restarts after them stay where they are. Each part of the work
    is priced where it was done: with the grid, the source and the PUE of that time. Work that is not moved keeps the
    intensity that was recorded.

    The standard deviation contains what has been learned since about the recorded intensities (the emissions of the
    same work at ``mean``), and, for work whose intensity is unknown, the variation of the recorded ones.

    Args:
        totals: Totals of the run.
        mean: Intensities, preferred to those that the run has recorded; None to use only these.

    Returns:
        The baseline of each kind; kinds whose intensity is not known for any part of the work are left out.

    """
    sums: dict[str, _Sums] = defaultdict(_Sums)
    unplaced = 0.0
    for segment in totals.segments:
        place = _place_of_node(totals, segment) if segment.node else segment.place
        if place is None:
            unplaced += segment.joules
        else:
            sums[place.kind].add(totals, segment, place, mean)
    found = {}
    for kind, one in sums.items():
        if one.known_joules > 0.0:
            found[kind] = one.baseline(totals, kind, unplaced)
    return found


def run_now_curve(totals: Totals, kind: str) -> list[tuple[float, float]]:
    """Return the emissions of the run-now baseline over time, from the intensities that the run has recorded.

    Args:
        totals: Totals of the run.
        kind: Kind of the signal.

    Returns:
        Times in seconds since the epoch, ascending, and the gCO2e emitted until then by the part of the work whose
        intensity is known.

    """
    parts = list[tuple[float, float]]()
    for segment in totals.segments:
        place = _place_of_node(totals, segment) if segment.node else segment.place
        if place is not None and place.kind == kind:
            end = segment.start - segment.delay + (segment.end - segment.start) * segment.speed
            parts.append((end, _run_now(totals, segment, place, None)[1]))
    parts.sort()
    found, grams = list[tuple[float, float]](), 0.0
    for end, more in parts:
        grams += more
        found.append((end, grams))
    return found


def saving_percent(actual: float, baseline: float) -> float | None:
    """Return the saving against run-now in percent; it is negative if waiting cost more than it saved.

    None if the baseline has no emissions.

    Examples:
        >>> saving_percent(90.0, 100.0)
        10.0

    """
    return 100.0 * (baseline - actual) / baseline if baseline > 0.0 else None


class _Sums:
    """Sums over the work of one kind."""

    def __init__(self) -> None:
        self.joules = self.known_joules = self.grams = self.unknown_actual = self.revision = 0.0
        self.places: set[Place] = set()

    def add(self, totals: Totals, segment: Segment, place: Place, mean: MeanAt | None) -> None:
        own = _recorded(totals, segment, place)
        known, grams = _run_now(totals, segment, place, mean)
        self.places.add(place)
        self.joules += segment.joules
        self.known_joules += segment.joules * known.share
        self.grams += grams
        self.unknown_actual += segment.joules / JOULES_PER_KWH * own.mean * (1.0 - known.share)
        now = None if mean is None else mean(place, segment.start, segment.end)
        if now is not None:
            self.revision += segment.joules / JOULES_PER_KWH * (now - own.mean)

    def baseline(self, totals: Totals, kind: str, unplaced: float) -> Baseline:
        share = self.known_joules / (self.joules + unplaced)
        std = None
        sources = {(source, quality) for known, source, quality in totals.gco2e_by_source if known == kind}
        if self.grams > 0.0 and all(quality != "static" for _, quality in sources):
            variation = max(totals.intensities[place].variation() for place in self.places)
            std = 100.0 * math.hypot(self.revision / self.grams, (1.0 - share) * variation)
        return Baseline(self.grams, totals.gco2e[kind] - self.unknown_actual, share, std)


def _recorded(totals: Totals, segment: Segment, place: Place) -> Known:
    """Return the intensity that was recorded for a segment."""
    own = totals.intensities[place].mean(segment.start, segment.end)
    # Another node does not start and end at the same moment as the first.
    return own._replace(share=1.0) if segment.node else own


def _run_now(totals: Totals, segment: Segment, place: Place, mean: MeanAt | None) -> tuple[Known, float]:
    """Return the intensity of a segment's work without waiting, and the emissions of its known part in gCO2e."""
    at, duration = segment.start - segment.delay, (segment.end - segment.start) * segment.speed
    is_moved = abs(segment.delay) > 1e-3 or segment.speed != 1.0
    known = _price(totals, place, at, at + duration, mean) if is_moved else _recorded(totals, segment, place)
    full_joules = segment.joules * segment.speed / segment.power
    return known, full_joules / JOULES_PER_KWH * known.mean * known.share


def _place_of_node(totals: Totals, segment: Segment) -> Place | None:
    """Return the place that the first node has recorded at the time of another one's work."""
    places = totals.intensities.items()
    return next((place for place, one in places if one.mean(segment.start, segment.end).share > 0.0), None)


def _price(totals: Totals, place: Place, start: float, end: float, mean: MeanAt | None) -> Known:
    """Return the mean intensity of a place: of the given ones, of the recorded ones, or of both."""
    whole = None if mean is None else mean(place, start, end)
    if whole is not None:
        return Known(whole, 1.0)
    recorded = totals.intensities[place]
    known = recorded.mean(start, end)
    if mean is None or end <= start:
        return known
    weighted, share = known.mean * known.share, known.share
    for gap_start, gap_end in recorded.gaps(start, end):
        value = mean(place, gap_start, gap_end)
        if value is not None:
            part = (gap_end - gap_start) / (end - start)
            weighted, share = weighted + part * value, share + part
    return Known(weighted / share, min(1.0, share)) if share else known
