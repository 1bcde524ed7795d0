"""Hourly values of earlier polls, kept in the cache of this machine: a service may return the last day only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from lightning_green.grid.live.cache import Cache, Entry, cache_key
from lightning_green.grid.live.parsing import parse_unix_time, parse_value, sort_points
from lightning_green.grid.live.query import Point
from lightning_green.utilities.http.errors import ServiceError

KEPT = timedelta(days=60)
"""Values older than this are dropped, which limits the file to about 60 kB."""
_MOST_POINTS = int(KEPT / timedelta(hours=1))


class Archive:
    """Hourly values of one source, zone and kind, shared by all processes of a machine.

    The file is an entry of ``Cache``: replaced atomically, readable by this user only, and kept in memory if the folder
    cannot be used.

    Args:
        identity: Text that is unique to the source, zone and kind.

    """

    def __init__(self, identity: str) -> None:
        self._key = cache_key(f"archive {identity}")

    def read(self, cache: Cache, now: datetime) -> tuple[Point, ...]:
        """Return the archived values of the ``KEPT`` time before ``now``, ascending."""
        return tuple(point for point in _points(cache.read(self._key).body) if now - KEPT <= point.time <= now)

    def add(self, cache: Cache, points: Iterable[Point], now: datetime) -> tuple[Point, ...]:
        """Add the means of complete hours and return the archived values. A measured value replaces an estimate.

        Args:
            cache: The cache.
            points: The values.
            now: The time.

        """
        new = list(points)
        known = self.read(cache, now)
        if _merged(known, new) == known:
            return known
        try:
            with cache.lock(self._key):
                kept = _merged(self.read(cache, now), new)  # another process may have added values in the meantime
                kept = tuple(point for point in kept if point.time >= now - KEPT)[-_MOST_POINTS:]
                rows = [[point.time.timestamp(), point.value, point.quality] for point in kept]
                cache.write(self._key, Entry(body=rows, fetched_at=now.timestamp()))
        except ServiceError:  # another process holds the lock for too long; the next poll adds the values
            return _merged(known, new)
        return kept


def _merged(known: Iterable[Point], new: Iterable[Point]) -> tuple[Point, ...]:
    best = {point.time: point for point in known}
    for point in new:
        before = best.get(point.time)
        if before is None or (before.quality != "measured" and point.quality == "measured"):
            best[point.time] = point
    return sort_points(best.values())


def _points(body: Any) -> tuple[Point, ...]:
    """Return the values in a decoded file, without those that ``Archive.add`` cannot have written."""
    found = []
    for row in body if isinstance(body, list) else []:
        if not isinstance(row, list) or len(row) != 3 or row[2] not in ("measured", "estimated"):
            continue
        time, value = parse_unix_time(row[0]), parse_value(row[1])
        if time is not None and value is not None and time.timestamp() % 3600 == 0:
            found.append(Point(time, value, row[2]))
    return sort_points(found)
