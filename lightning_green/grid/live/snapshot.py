"""What a live signal knows at one moment. Immutable: the polling thread swaps it, the training thread reads it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from lightning_green.grid.live.answer import Answer, Point, floor_time, ordered
from lightning_green.grid.series import HISTORY, Array, Series, utc
from lightning_green.grid.signal import Quality, Reading, SignalKind
from lightning_green.planning.forecast import Forecast

_HOUR = timedelta(hours=1)
_QUALITIES: tuple[Quality, ...] = ("measured", "estimated", "forecast", "static")
WARN_AGE = timedelta(hours=2)
"""A value older than this gives way to any forecast in hand; sources lag 30 to 120 minutes by nature."""
EARLY = timedelta(minutes=5)
"""How far ahead of our clock a measured value may be before one of the two clocks must be wrong."""


@dataclass(frozen=True)
class Issue:
    """When things were said.

    Args:
        past: When the newest measured value was published, or None.
        ahead: When the newest forecast was made, or None.
        ahead_from: The first time that the newest forecast speaks of, or None.
        fetched: When the newest answer was read, or None.

    """

    past: datetime | None = None
    ahead: datetime | None = None
    ahead_from: datetime | None = None
    fetched: datetime | None = None


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


class Snapshot:
    """Measured values, a forecast, and a history by the hour.

    The values are held as arrays, so that one process can make a snapshot and another take it over at once.

    Args:
        step: How long one value holds.
        past: Measured and estimated values, ascending.
        ahead: Predicted values, ascending; those of earlier issues for times before the newest.
        issue: When things were said.

    """

    def __init__(
        self, step: timedelta, past: Sequence[Point] = (), ahead: Sequence[Point] = (), issue: Issue | None = None
    ) -> None:
        qualities = np.array([_QUALITIES.index(point.quality) for point in past], dtype=np.uint8)
        tracks = [_track(past), _track(ahead), np.array(hourly(past), dtype=np.float64).reshape(-1, 2).T]
        self._fill(step, tracks, qualities, issue or Issue())

    def _fill(self, step: timedelta, tracks: Sequence[Array], qualities: NDArray[np.uint8], issue: Issue) -> None:
        limit = max(step, timedelta(seconds=1))
        (past, ahead, history), self.step, self.issue = tracks, step, issue
        self._tracks, self._qualities = tracks, qualities
        self._past = Series.from_arrays(past[0], past[1], step=limit, gap=limit)
        self._ahead = Series.from_arrays(ahead[0], ahead[1], step=limit, gap=_HOUR)
        self._history = Series.from_arrays(history[0], history[1], step=_HOUR, gap=_HOUR)

    @property
    def past(self) -> tuple[Point, ...]:
        """Measured and estimated values, ascending."""
        rows = zip(self._past.starts.tolist(), self._past.values.tolist(), self._qualities.tolist(), strict=True)
        return tuple(Point(utc(time), value, _QUALITIES[quality]) for time, value, quality in rows)

    @property
    def ahead(self) -> tuple[Point, ...]:
        """Predicted values, ascending."""
        rows = zip(self._ahead.starts.tolist(), self._ahead.values.tolist(), strict=True)
        return tuple(Point(utc(time), value, "forecast") for time, value in rows)

    def pack(self) -> bytes:
        """Return the snapshot as bytes, from which :meth:`unpack` makes it again in a fraction of a millisecond."""
        said = [None if time is None else time.timestamp() for time in astuple(self.issue)]
        sizes = [track.shape[1] for track in self._tracks]
        head = json.dumps({"step": self.step.total_seconds(), "issue": said, "sizes": sizes}).encode()
        arrays = b"".join(np.ascontiguousarray(track).tobytes() for track in self._tracks)
        return head + b"\n" + arrays + self._qualities.tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> Snapshot:
        """Return the snapshot that :meth:`pack` wrote."""
        end = data.index(b"\n")
        head, at = json.loads(data[:end]), end + 1
        tracks = []
        for size in head["sizes"]:
            tracks.append(np.frombuffer(data, np.float64, 2 * size, at).reshape(2, size))
            at += 16 * size
        snapshot = cls.__new__(cls)
        issue = Issue(*(None if time is None else utc(time) for time in head["issue"]))
        qualities = np.frombuffer(data, np.uint8, head["sizes"][0], at)
        snapshot._fill(timedelta(seconds=head["step"]), tracks, qualities, issue)
        return snapshot

    def merged(self, answers: Iterable[tuple[Answer, datetime]], now: datetime) -> Snapshot:
        """Return the snapshot with what ``answers`` (each with the time it was fetched at) bring."""
        past, ahead, issue = list(self.past), list(self.ahead), self.issue
        for answer, at in answers:
            past += [point for point in answer.past if point.time <= now + EARLY]
            if answer.past:
                issue = replace(issue, past=answer.issued_at or issue.past)
            if answer.forecast:
                begins = answer.forecast[0].time
                # a new issue replaces the older one from its own first hour on
                ahead = [point for point in ahead if point.time < begins] + list(answer.forecast)
                # a server whose clock is ahead of ours has not made it in the future
                issue = replace(issue, ahead=min(answer.issued_at or at, max(at, now)), ahead_from=begins)
            issue = replace(issue, fetched=at if issue.fetched is None else max(issue.fetched, at))
        begin = now - HISTORY - _HOUR
        return Snapshot(
            self.step,
            [point for point in ordered(past) if point.time >= begin],
            [point for point in ordered(ahead) if point.time >= begin],
            issue,
        )

    def find(self, at: datetime, max_age: timedelta) -> Found | None:
        """Return the best value for ``at``.

        In this order: a value of that very time; a forecast, moved by what the same forecast was off by for the newest
        value, up to ``max_age`` old; the newest forecast as it is; the newest value, up to :data:`WARN_AGE` old; an
        older forecast; the newest value, up to ``max_age`` old; the same hour of one of the seven days before; nothing.

        That a moved forecast errs less than either is measured by ``benchmarks/grid_bridge.py``.
        """
        newest = self._newest(at)
        if newest is not None and not newest.age:
            return newest
        predicted = self._ahead.at(at)
        if newest is not None and newest.age > max_age:
            newest = None
        if predicted is not None:
            base = None if newest is None else self._ahead.at(newest.time)
            is_new = self.issue.ahead_from is None or predicted[0] >= self.issue.ahead_from
            if newest is not None and base is not None and is_new == (base[0] >= (self.issue.ahead_from or base[0])):
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
        issued = self.issue.ahead if found.quality == "forecast" else self.issue.past
        return Reading(found.value, kind, source, zone, found.time, issued, self.issue.fetched, found.quality)

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
            issued_at=None if self.issue.ahead is None else min(self.issue.ahead, now),  # our clock may go back
            history_times=past_times,
            history_values=past_values if past_times else None,
        )

    def _newest(self, at: datetime) -> Found | None:
        position = self._past.before(at.timestamp())
        if position is None:
            return None
        time, value = utc(self._past.starts[position]), float(self._past.values[position])
        covers = self._past.index(at.timestamp()) == position
        return Found(time, value, _QUALITIES[self._qualities[position]], timedelta(0) if covers else at - time)


def hourly(points: Iterable[Point]) -> list[tuple[float, float]]:
    """Return the start (seconds since the epoch) and the mean of each hour that has a value.

    A history of eight days in minutes would slow every plan down.
    """
    sums: dict[float, list[float]] = {}
    for point in points:
        sums.setdefault(point.time.timestamp() // 3600 * 3600, []).append(point.value)
    return [(hour, sum(values) / len(values)) for hour, values in sorted(sums.items())]


def _track(points: Sequence[Point]) -> Array:
    times = [point.time.timestamp() for point in points]
    return np.array([times, [point.value for point in points]], dtype=np.float64).reshape(2, -1)
