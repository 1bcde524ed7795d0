"""Merges the samples of a long ledger that differ in nothing but their energy, to read it in a fraction of the time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

_LONGEST = 300.0
"""Seconds of samples that become one: the resolution of the power over time."""
_CLOCK_STEP = 1.0
"""Difference in seconds between the wall clock and the monotonic clock that is no sleep of the machine."""
_POWER_CHANGE = 0.2
"""Largest change of the power in a merged interval, as a fraction."""
_HEADER = ("attempt", "pid", "node_rank", "fit", "phase", "state", "power", "speed", "pue", "v")
_INTENSITY = ("value", "kind", "source", "zone", "quality")


class SampleMerger:
    """Decides which samples of one ledger a later one replaces.

    Energy is a running total, so the interval up to the later sample has the energy, the intensity and the time of all
    of them. Samples are merged while the power is nearly constant, so the run-now baseline, which moves an interval in
    time, hardly changes. Those of other nodes are not merged: their intensity is that of the first node.
    """

    def __init__(self) -> None:
        self._first, self._begins_alike = 0.0, False
        self._watts: float | None = None
        self._last: tuple[datetime, float] | None = None

    def replaces(self, record: dict[str, Any], held: dict[str, Any]) -> bool:
        """Return whether ``record`` replaces ``held``, the event before it.

        Args:
            record: The next event as JSON, which may contain anything.
            held: The event before it.

        """
        try:
            return self._replaces(record, held)
        except (KeyError, TypeError, ValueError, AttributeError):
            return False

    def hold(self, record: dict[str, Any], previous: dict[str, Any] | None) -> None:
        """Note that the next event may replace ``record``.

        The interval before a sample is accounted in the state of the event before it, ``previous``.
        """
        self._last = self._watts = None
        self._begins_alike = previous is not None and _same(record, previous, _HEADER)
        mono = record.get("mono_s")
        self._first = mono if isinstance(mono, float) else 0.0

    def _replaces(self, record: dict[str, Any], held: dict[str, Any]) -> bool:
        if (
            not self._begins_alike
            or record.get("node_rank")
            or record["event"] != "sample"
            or held["event"] != "sample"
        ):
            return False
        if not _same(record, held, _HEADER):
            return False
        own, other = record.get("intensity"), held.get("intensity")
        if own is None or other is None:
            if own is not other:
                return False
        elif not _same(own, other, _INTENSITY):
            return False
        joules, before = record["joules"], held["joules"]
        if any(one["quality"] != before[name]["quality"] for name, one in joules.items()) or len(joules) != len(before):
            return False
        mono = record["mono_s"]
        wall = datetime.fromisoformat(record["time_utc"])
        last_wall, last_mono = self._last or (datetime.fromisoformat(held["time_utc"]), held["mono_s"])
        awake = mono - last_mono
        if (
            mono - self._first > _LONGEST
            or abs((wall - last_wall).total_seconds() - awake) > _CLOCK_STEP
            or awake < 0.0
        ):
            return False
        watts = sum(one["value"] - before[name]["value"] for name, one in joules.items()) / max(awake, 1e-9)
        self._watts = watts if self._watts is None else self._watts
        if abs(watts - self._watts) > _POWER_CHANGE * max(abs(watts), abs(self._watts)):
            return False
        self._last = wall, mono
        return True


def _same(one: dict[str, Any], other: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Return whether two objects have the same values."""
    return list(map(one.get, names)) == list(map(other.get, names))
