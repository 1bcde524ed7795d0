"""What a carbon-intensity signal is: its kind, a reading, a forecast's contract."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from lightning_green.planning.forecast import Forecast

Quality = Literal["measured", "estimated", "forecast", "static"]


@dataclass(frozen=True)
class SignalKind:
    """What a number in gCO2e/kWh means. Two signals of different kinds are never mixed.

    Args:
        method: ``"average"`` (all generation, location-based; accounts) or ``"marginal"`` (the plant that answers to
            one more kWh; plans).
        scope: ``"lifecycle"`` (with construction and fuel supply) or ``"direct"`` (at the stack).

    """

    method: Literal["average", "marginal"] = "average"
    scope: Literal["lifecycle", "direct"] = "lifecycle"

    def __post_init__(self) -> None:
        if self.method not in ("average", "marginal"):
            raise ValueError(f'`method` should be "average" or "marginal", got {self.method!r}.')
        if self.scope not in ("lifecycle", "direct"):
            raise ValueError(f'`scope` should be "lifecycle" or "direct", got {self.scope!r}.')

    def __str__(self) -> str:
        return f"{self.method}/{self.scope}"

    @classmethod
    def parse(cls, text: str) -> SignalKind:
        """Return the kind that ``str(kind)`` wrote, for example ``"average/lifecycle"``."""
        method, _, scope = text.partition("/")
        return cls(method, scope)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Reading:
    """One carbon intensity with where and when it comes from.

    Args:
        value: Carbon intensity in gCO2e/kWh.
        kind: What the number means.
        source: Name of the signal that it came from.
        zone: The grid zone, or None where the signal knows none.
        measured_at: The time that the value is true for.
        issued_at: When the source published it.
        fetched_at: When we read it.
        quality: ``"measured"``, ``"estimated"`` (by the source), ``"forecast"`` or ``"static"`` (a long-run mean).

    """

    value: float
    kind: SignalKind
    source: str
    zone: str | None
    measured_at: datetime
    issued_at: datetime | None = None
    fetched_at: datetime | None = None
    quality: Quality = "measured"


class GridSignal(ABC):
    """Carbon intensity of a grid over time.

    A signal answers from memory and at once: one that needs the network polls on a thread of its own. It never raises
    into a training because the world failed; it answers None, and :attr:`problem` says why.

    Attributes:
        kind: What its numbers mean.
        zone: Grid zone, for example ``"DE"``; None where it has none.
        source: A short name for logs and the ledger.
        problem: One sentence about the last failure, or None.

    """

    kind: SignalKind
    zone: str | None
    source: str
    problem: str | None = None

    @abstractmethod
    def intensity(self, at: datetime) -> Reading | None:
        """Return the intensity at ``at`` (aware), or None where nothing is known about that time."""

    @abstractmethod
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        """Return what is known at ``now`` about ``now`` to ``now + horizon``, or None."""

    def mean(self, start: datetime, end: datetime) -> float | None:
        """Return the time-weighted mean intensity from ``start`` to ``end`` in gCO2e/kWh.

        This is the integral that emissions are made of. Values hold from their time to the next one; the base class
        asks :meth:`intensity` every :meth:`resolution`, aligned to it. None where a part of the interval is unknown.
        """
        step = self.resolution().total_seconds()
        first, last = start.timestamp(), end.timestamp()
        if last <= first:
            reading = self.intensity(start)
            return None if reading is None else reading.value
        total, at = 0.0, first
        while at < last:
            until = min(last, (math.floor(at / step + 1e-9) + 1) * step)
            reading = self.intensity(datetime.fromtimestamp(at, timezone.utc))
            if reading is None:
                return None
            total += reading.value * (until - at)
            at = until
        return total / (last - first)

    def resolution(self) -> timedelta:
        """Return how often the values change; an hour unless a signal knows better."""
        return timedelta(hours=1)

    def covers_until(self) -> datetime | None:
        """Return the time at which the signal's values end for good; None where they never do.

        Only recorded values end: a deadline after this time cannot be planned for.
        """
        return None

    def news(self) -> list[str]:
        """Return what happened since the last call, a sentence each: a source failed, another took over, it recovered.

        Whoever asks writes them to the log and the ledger; each is told once.
        """
        return []

    def bind_clock(self, now: Callable[[], datetime]) -> None:  # noqa: B027  (a hook)
        """Take the time from ``now`` instead of the machine's clock, where the signal reads one; before ``start``."""

    def start(self) -> None:  # noqa: B027  (a hook)
        """Begin to poll, where the signal needs that."""

    def close(self) -> None:  # noqa: B027  (a hook)
        """Stop polling and let go of what was opened."""

    def spec(self) -> dict[str, Any] | None:
        """Return ``{"class_path": ..., "init_args": {...}}`` from which another process can build the same signal.

        The supervisor plans with it while the run is out. No secret is ever in it. None where the signal lives in this
        process alone (a Python callable).
        """
        return None

    def _spec(self, **arguments: Any) -> dict[str, Any]:
        """Return the spec of this class with ``arguments``."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"class_path": public_path(path), "init_args": arguments}

    @classmethod
    def from_zone(cls, zone: str | None) -> GridSignal:
        """Return the signal for ``zone``: what ``grid="name:ZONE"`` calls.

        The base class calls ``cls(zone)``.

        Args:
            zone: Text after the colon, or the ``zone`` argument; None if neither is given.

        Raises:
            ValueError: If the source needs a zone and has none, or does not know it.

        """
        if zone is None:
            raise ValueError("this source needs a zone")
        return cls(zone)  # type: ignore[call-arg]

    def describe(self) -> str:
        """Return one line for the start-up block."""
        return f"{self.source}, {self.kind}, zone {self.zone or 'none'}"


def public_path(path: str) -> str:
    """Return the public path of a class of this package: without the module that defines it.

    Specs in ledgers stay valid when a module moves.

    Example::

        >>> public_path("lightning_green.grid.TraceSignal")
        'lightning_green.grid.TraceSignal'
        >>> public_path("my_package.signals.MySignal")
        'my_package.signals.MySignal'

    """
    package = "lightning_green.grid."
    return package + path.rpartition(".")[2] if path.startswith(package) else path
