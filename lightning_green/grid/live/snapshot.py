"""All known values of a polled signal at one moment."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from lightning_green.grid.live.parsing import floor_time, sort_points
from lightning_green.grid.live.query import Answer, Point
from lightning_green.grid.series import HISTORY, Series, utc
from lightning_green.grid.signal import Quality, Reading, SignalKind
from lightning_green.planning.forecast import Forecast

_HOUR = timedelta(hours=1)
WARN_AGE = timedelta(hours=2)
"""Any forecast is preferred to a value older than this. Sources lag by 30 to 120 minutes in normal operation."""
CLOCK_TOLERANCE = timedelta(minutes=5)
"""Measured values further ahead of this machine's clock than this are dropped."""


@dataclass(frozen=True)
class Provenance:
    """Times at which the values of a snapshot were published.

    Args:
        published_at: Time of publication of the newest measured value, or None.
        issued_at: Time at which the newest forecast was made, or None.
        forecast_start: First time that the newest forecast covers, or None.

    """

    published_at: datetime | None = None
    issued_at: datetime | None = None
    forecast_start: datetime | None = None


@dataclass(frozen=True)
class Found:
    """A value for one time.

    Args:
        time: Start of the interval that the value was measured or predicted for.
        value: Carbon intensity in gCO2e/kWh.
        quality: How the value was obtained.
        age: Requested time minus ``time``; 0 if the interval contains the requested time.

    """

    time: datetime
    value: float
    quality: Quality
    age: timedelta


class Snapshot:
    """Measured values, predictions and an hourly history. Immutable.

    Args:
        step: Interval that one value is valid for.
        past: Measured and estimated values, ascending.
        predictions: Predicted values, ascending. Those before the newest forecast come from earlier ones.
        provenance: When the values were published.
        archive: Means of complete hours that earlier polls knew, also those of other processes, ascending.

    """

    def __init__(
        self,
        step: timedelta,
        past: Sequence[Point] = (),
        predictions: Sequence[Point] = (),
        provenance: Provenance | None = None,
        archive: Sequence[Point] = (),
    ) -> None:
        limit = max(step, timedelta(seconds=1))
        self.step = step
        self.past = tuple(past)
        self.predictions = tuple(predictions)
        self.provenance = provenance or Provenance()
        self._past = _series(past, step=limit, gap=limit)
        self._predictions = _series(predictions, step=limit, gap=_HOUR)
        self.archive = tuple(archive)
        self._archive = _series(archive, step=_HOUR, gap=_HOUR)
        known = {point.time: point.value for point in archive}
        known.update(hourly_means(past))
        self._history = Series(sorted(known.items()), step=_HOUR, gap=_HOUR)

    def merged(self, answers: Iterable[tuple[Answer, datetime]], now: datetime) -> Snapshot:
        """Return a snapshot that includes more answers.

        Args:
            answers: Answers, each with the time it was fetched at.
            now: The time.

        """
        past, predictions, provenance = list(self.past), list(self.predictions), self.provenance
        for answer, at in answers:
            past += [point for point in answer.past if point.time <= now + CLOCK_TOLERANCE]
            if answer.past:
                provenance = replace(provenance, published_at=answer.issued_at or provenance.published_at)
            if answer.forecast:
                start = answer.forecast[0].time
                # A new forecast replaces the older one from its first hour on.
                predictions = [point for point in predictions if point.time < start] + list(answer.forecast)
                # A server whose clock is ahead of ours did not make the forecast in the future.
                issued_at = min(answer.issued_at or at, max(at, now))
                provenance = replace(provenance, issued_at=issued_at, forecast_start=start)
        begin = now - HISTORY - _HOUR
        return Snapshot(
            self.step,
            [point for point in sort_points(past) if point.time >= begin],
            [point for point in sort_points(predictions) if point.time >= begin],
            provenance,
            self.archive,
        )

    def with_archive(self, archive: Sequence[Point]) -> Snapshot:
        """Return this snapshot with another archive."""
        return Snapshot(self.step, self.past, self.predictions, self.provenance, archive)

    def complete_hours(self) -> tuple[Point, ...]:
        """Return the mean of each past hour that is complete and of which values cover at least one half."""
        if not self.past:
            return ()
        end = (self.past[-1].time + self.step).timestamp()
        hours: dict[float, list[Point]] = {}
        for point in self.past:
            hours.setdefault(point.time.timestamp() // 3600 * 3600, []).append(point)
        return tuple(
            Point(
                utc(hour),
                sum(point.value for point in points) / len(points),
                "measured" if all(point.quality == "measured" for point in points) else "estimated",
            )
            for hour, points in hours.items()
            if hour + 3600 <= end and len(points) * self.step >= _HOUR / 2
        )

    def value_of(self, at: datetime, max_age: timedelta) -> float | None:
        """Return the value for ``at`` if it is of that time: measured, archived or predicted, not an older one."""
        found = self.find(at, max_age)
        return None if found is None or found.age else found.value

    def find(self, at: datetime, max_age: timedelta) -> Found | None:
        """Return the best value for ``at``.

        The first of these that exists: a value of that time; the archived mean of its hour; a forecast, moved by its
        error at the newest value, if that is at most ``max_age`` old; the newest forecast as it is; the newest value,
        up to ``WARN_AGE`` old; an older forecast; the newest value, up to ``max_age`` old; the same hour of one of the
        seven days before; None.

        ``benchmarks/grid_bridge.py`` measures that a moved forecast has a smaller error than either alone.
        """
        newest = self._newest(at)
        if newest is not None and not newest.age:
            return newest
        archived = self._archive.before(at.timestamp())
        if archived is not None and self._archive.index(at.timestamp()) == archived:
            point = self.archive[archived]
            return Found(point.time, point.value, point.quality, timedelta(0))
        predicted = self._predictions.at(at)
        if newest is not None and newest.age > max_age:
            newest = None
        if predicted is not None:
            base = None if newest is None else self._predictions.at(newest.time)
            start = self.provenance.forecast_start
            is_new = start is None or predicted[0] >= start
            if newest is not None and base is not None and is_new == (base[0] >= (start or base[0])):
                moved = max(0.0, newest.value + predicted[1] - base[1])
                return Found(predicted[0], moved, "forecast", timedelta(0))
            if is_new or newest is None or newest.age > WARN_AGE:
                return Found(predicted[0], predicted[1], "forecast", timedelta(0))
        if newest is not None:
            return newest
        for days in range(1, 8):
            earlier = self._history.at(at - timedelta(days=days))
            if earlier is not None:
                return Found(earlier[0], earlier[1], "estimated", timedelta(days=days))
        return None

    def is_current(self, now: datetime, max_age: timedelta) -> bool:
        """Return whether the value for ``now`` is at most ``max_age`` old."""
        found = self.find(now, max_age)
        return found is not None and found.age <= max_age

    def reading(
        self, at: datetime, max_age: timedelta, kind: SignalKind, source: str, zone: str | None
    ) -> Reading | None:
        """Return the value of ``find`` as a reading with its provenance."""
        found = self.find(at, max_age)
        if found is None:
            return None
        provenance = self.provenance
        issued_at = provenance.issued_at if found.quality == "forecast" else provenance.published_at
        return Reading(found.value, kind, source, zone, found.time, issued_at, found.quality)

    def forecast(self, now: datetime, horizon: timedelta, max_age: timedelta, kind: str) -> Forecast | None:
        """Return the known values from ``now`` on and the hourly history, from which the planner fills the rest."""
        known = self._known_from(now, horizon, max_age)
        start = known[0][0] if known else now
        past_times, past_values = self._history.slice(now - HISTORY, start)
        if not known and not past_times:
            return None
        issued_at = self.provenance.issued_at
        return Forecast(
            times=[time for time, _ in known],
            values=np.array([value for _, value in known], dtype=np.float64),
            kind=kind,
            issued_at=None if issued_at is None else min(issued_at, now),  # this machine's clock may be set back
            history_times=past_times,
            history_values=past_values if past_times else None,
        )

    def _known_from(self, now: datetime, horizon: timedelta, max_age: timedelta) -> list[tuple[datetime, float]]:
        """Return start and value of the intervals from ``now`` on, up to the first gap of more than an hour."""
        found = self.find(now, max_age)
        times, values = self._predictions.slice(now, now + max(horizon, timedelta(seconds=1)))
        known = list(zip(times, values.tolist(), strict=True))
        if found is not None and found.quality != "estimated":
            first = max(floor_time(now, self.step), found.time) if not known or known[0][0] > now else known[0][0]
            if not known or known[0][0] > first:
                known.insert(0, (first, found.value))
            elif found.age == timedelta(0) and found.quality != "forecast":
                known[0] = (first, found.value)  # a measured value is better than a prediction for the same time
        contiguous = known[:1]
        for before, after in itertools.pairwise(known):
            if after[0] - before[0] > _HOUR:
                break
            contiguous.append(after)
        return contiguous

    def _newest(self, at: datetime) -> Found | None:
        position = self._past.before(at.timestamp())
        if position is None:
            return None
        point = self.past[position]
        covers = self._past.index(at.timestamp()) == position
        return Found(point.time, point.value, point.quality, timedelta(0) if covers else at - point.time)


def hourly_means(points: Iterable[Point]) -> list[tuple[datetime, float]]:
    """Return start and mean of each hour that has a value. A history of eight days in minutes would slow down plans."""
    values: dict[float, list[float]] = {}
    for point in points:
        values.setdefault(point.time.timestamp() // 3600 * 3600, []).append(point.value)
    return [(utc(hour), sum(of_hour) / len(of_hour)) for hour, of_hour in sorted(values.items())]


def _series(points: Sequence[Point], step: timedelta, gap: timedelta) -> Series:
    return Series([(point.time, point.value) for point in points], step=step, gap=gap)
