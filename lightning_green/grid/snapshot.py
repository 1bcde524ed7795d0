"""What a live signal knows at one moment. Immutable: the polling thread swaps it, the training thread reads it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from lightning_green.grid.answer import Answer, Point, floor_time, ordered
from lightning_green.grid.series import HISTORY, Series, utc
from lightning_green.grid.signal import Quality, Reading, SignalKind
from lightning_green.planning.forecast import Forecast

_HOUR = timedelta(hours=1)
WARN_AGE = timedelta(hours=2)
"""A value older than this gives way to any forecast in hand; sources lag 30 to 120 minutes by nature."""
EARLY = timedelta(minutes=5)
"""How far ahead of our clock a measured value may be before one of the two clocks must be wrong."""


@dataclass(frozen=True)
class Found:
    """A value for one time.

    Args:
        time: Start of the interval that the value is true for.
        value: Carbon intensity in gCO2e/kWh.
        quality: What it is worth.
        age: How much older than the time asked for it is; 0 where it covers it.

    """

    time: datetime
    value: float
    quality: Quality
    age: timedelta


@dataclass(frozen=True)
class Snapshot:
    """Measured values, a forecast, and a history by the hour.

    Args:
        step: How long one value holds.
        past: Measured and estimated values.
        ahead: Predicted values; those of earlier issues for times before the newest.
        past_issued_at: When the newest measured value was published, or None.
        issued_at: When the newest forecast was made, or None.
        issue_from: The first time that the newest forecast speaks of, or None.
        fetched_at: When the newest answer was read, or None.

    """

    step: timedelta
    past: tuple[Point, ...] = ()
    ahead: tuple[Point, ...] = ()
    past_issued_at: datetime | None = None
    issued_at: datetime | None = None
    issue_from: datetime | None = None
    fetched_at: datetime | None = None
    _past: Series = field(init=False, repr=False, compare=False)
    _ahead: Series = field(init=False, repr=False, compare=False)
    _history: Series = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limit = max(self.step, timedelta(seconds=1))
        object.__setattr__(self, "_past", Series(((p.time, p.value) for p in self.past), step=limit, gap=limit))
        object.__setattr__(self, "_ahead", Series(((p.time, p.value) for p in self.ahead), step=limit, gap=_HOUR))
        object.__setattr__(self, "_history", Series(hourly(self.past), step=_HOUR, gap=_HOUR))

    def merged(self, answers: Iterable[tuple[Answer, datetime]], now: datetime) -> Snapshot:
        """Return the snapshot with what ``answers`` (each with the time it was fetched at) bring."""
        past, ahead = list(self.past), list(self.ahead)
        past_issued, issued, fetched = self.past_issued_at, self.issued_at, self.fetched_at
        begins = self.issue_from
        for answer, at in answers:
            past += [point for point in answer.past if point.time <= now + EARLY]
            if answer.past:
                past_issued = answer.issued_at or past_issued
            if answer.forecast:
                # a new issue replaces the older one from its own first hour on
                ahead = [point for point in ahead if point.time < answer.forecast[0].time] + list(answer.forecast)
                begins = answer.forecast[0].time
                # a server whose clock is ahead of ours has not made it in the future
                issued = min(answer.issued_at or at, max(at, now))
            fetched = at if fetched is None else max(fetched, at)
        begin = now - HISTORY - _HOUR
        return Snapshot(
            self.step,
            tuple(point for point in ordered(past) if point.time >= begin),
            tuple(point for point in ordered(ahead) if point.time >= begin),
            past_issued,
            issued,
            begins,
            fetched,
        )

    def find(self, at: datetime, max_age: timedelta) -> Found | None:
        """Return the best value for ``at``.

        In this order: a value of that very time; a forecast, moved by what the same forecast was off by for the newest
        value, up to ``max_age`` old; the newest forecast as it is; the newest value, up to :data:`WARN_AGE` old; an
        older forecast; the newest value, up to ``max_age`` old; the same hour of one of the seven days before; nothing.

        That a moved forecast beats both the forecast and the last value is measured by ``benchmarks/grid_bridge.py``.
        """
        newest = self._newest(at)
        if newest is not None and not newest.age:
            return newest
        predicted = self._ahead.at(at)
        if newest is not None and newest.age > max_age:
            newest = None
        if predicted is not None:
            base = None if newest is None else self._ahead.at(newest.time)
            is_new = self.issue_from is None or predicted[0] >= self.issue_from
            if newest is not None and base is not None and is_new == (base[0] >= (self.issue_from or base[0])):
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

    def reading(
        self, at: datetime, max_age: timedelta, kind: SignalKind, source: str, zone: str | None
    ) -> Reading | None:
        """Return :meth:`find`'s value with all that is known about it."""
        found = self.find(at, max_age)
        if found is None:
            return None
        issued = self.issued_at if found.quality == "forecast" else self.past_issued_at
        return Reading(found.value, kind, source, zone, found.time, issued, self.fetched_at, found.quality)

    def forecast(self, now: datetime, horizon: timedelta, max_age: timedelta, kind: str) -> Forecast | None:
        """Return what is known from ``now`` on, and the hourly history; the planner fills the rest from the history."""
        found = self.find(now, max_age)
        times, values = self._ahead.slice(now, now + max(horizon, timedelta(seconds=1)))
        known = list(zip(times, values.tolist(), strict=True))
        if found is not None and found.quality != "estimated":
            first = max(floor_time(now, self.step), found.time) if not known or known[0][0] > now else known[0][0]
            if not known or known[0][0] > first:
                known.insert(0, (first, found.value))
            elif found.age == timedelta(0) and found.quality != "forecast":
                known[0] = (first, found.value)  # a measured value is better than one predicted for the same time
        contiguous = known[:1]
        for before, after in itertools.pairwise(known):
            if after[0] - before[0] > _HOUR:
                break
            contiguous.append(after)
        begin = contiguous[0][0] if contiguous else now
        past_times, past_values = self._history.slice(now - HISTORY, begin)
        if not contiguous and not past_times:
            return None
        return Forecast(
            times=[time for time, _ in contiguous],
            values=np.array([value for _, value in contiguous], dtype=np.float64),
            kind=kind,
            issued_at=self.issued_at,
            history_times=past_times,
            history_values=past_values if past_times else None,
        )

    def _newest(self, at: datetime) -> Found | None:
        position = self._past.before(at.timestamp())
        if position is None:
            return None
        point = self.past[position]
        covers = self._past.index(at.timestamp()) == position
        return Found(point.time, point.value, point.quality, timedelta(0) if covers else at - point.time)


def hourly(points: Iterable[Point]) -> list[tuple[datetime, float]]:
    """Return the mean of each hour that has a value; a history of eight days in minutes would slow every plan down."""
    sums: dict[float, list[float]] = {}
    for point in points:
        sums.setdefault(point.time.timestamp() // 3600 * 3600, []).append(point.value)
    return [(utc(hour), sum(values) / len(values)) for hour, values in sorted(sums.items())]
