"""The contract of a carbon-intensity signal: kind, reading, forecast."""

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
    """Definition of a carbon intensity. Signals of different kinds are never combined.

    Args:
        method: ``"average"`` (all generation, location-based; used to account) or ``"marginal"`` (the power plant that
            supplies one additional kWh; used to plan).
        scope: ``"lifecycle"`` (includes construction and fuel supply) or ``"direct"`` (stack emissions only).

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
        """Return the kind for a string such as ``"average/lifecycle"``, the inverse of ``str(kind)``."""
        method, _, scope = text.partition("/")
        return cls(method, scope)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Reading:
    """One carbon intensity and its origin.

    Args:
        value: Carbon intensity in gCO2e/kWh.
        kind: Definition of the value.
        source: Name of the signal.
        zone: Grid zone, or None if the signal has none.
        measured_at: Time that the value applies to.
        issued_at: Time at which the source published it.
        quality: ``"measured"``, ``"estimated"`` (by the source), ``"forecast"`` or ``"static"`` (a long-run mean).

    """

    value: float
    kind: SignalKind
    source: str
    zone: str | None
    measured_at: datetime
    issued_at: datetime | None = None
    quality: Quality = "measured"


class GridSignal(ABC):
    """Carbon intensity of a grid over time.

    A signal answers from memory without waiting; a signal that needs the network polls on its own thread. A failure
    outside the process never raises: the answer is None, and ``problem`` contains the reason.

    A subclass sets ``kind``, ``zone`` and ``source``, implements ``intensity`` and ``forecast``, and returns
    ``self._spec(argument=value, ...)`` from ``spec``.

    Attributes:
        kind: Definition of the values.
        zone: Grid zone, for example ``"DE"``; None if it has none.
        source: Short name for logs and the ledger.
        problem: One sentence about the current failure, or None.
        reason: Why this source was chosen, for the start-up block; empty if the user named it.
        is_static: Whether all values are long-run means or assumptions, such as a country's annual mean.

    """

    kind: SignalKind
    zone: str | None
    source: str
    problem: str | None = None
    reason: str = ""
    is_static: bool = False

    @abstractmethod
    def intensity(self, at: datetime) -> Reading | None:
        """Return the intensity at ``at`` (aware), or None if it is unknown."""

    @abstractmethod
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        """Return the forecast, made at ``now``, of the time from ``now`` to ``now + horizon``, or None."""

    def mean(self, start: datetime, end: datetime) -> float | None:
        """Return the time-weighted mean intensity from ``start`` to ``end`` in gCO2e/kWh.

        Emissions are this mean times the energy. A value applies from its time to the next one; the base class
        evaluates ``intensity`` at multiples of ``resolution``. None if any part of the interval is unknown.
        """

        def value(at: datetime, until: datetime) -> float | None:
            reading = self.intensity(at)
            return None if reading is None else reading.value

        return time_weighted_mean(value, self.resolution(), start, end)

    def measured_mean(self, start: datetime, end: datetime) -> float | None:
        """Return the mean intensity from ``start`` to ``end`` from values of that time, for a past baseline.

        Unlike ``mean``, no other value replaces a missing one. A live signal uses measured values, estimates of the
        service for that time and the last forecast of it, but no older value and no earlier day. A chain with live
        sources does not use its static ones. For every other signal, also a static one that the user chose alone, it
        equals ``mean``.

        Returns:
            gCO2e/kWh; None if any part of the interval is unknown.

        """
        return self.mean(start, end)

    def forecast_signal(self, now: datetime, horizon: timedelta) -> GridSignal | None:
        """Return the signal that ``forecast`` takes its values from: this one or, of a chain, a part; None if no one.

        Its ``source`` and ``is_static`` describe the forecast.
        """
        return None if self.forecast(now, horizon) is None else self

    def resolution(self) -> timedelta:
        """Return the interval between two values; the base class returns one hour."""
        return timedelta(hours=1)

    def covers_until(self) -> datetime | None:
        """Return the time at which the values end; None if they do not.

        Only recorded values end. A deadline after this time cannot be planned for.
        """
        return None

    def pop_messages(self) -> list[str]:
        """Return one sentence for each failure, change of source and recovery since the last call.

        The caller writes them to the log and the ledger. Each is returned once.
        """
        return []

    def bind_clock(self, now: Callable[[], datetime]) -> None:  # noqa: B027  (a hook)
        """Use ``now`` instead of the machine's clock. Call this before ``start``."""

    def start(self) -> None:  # noqa: B027  (a hook)
        """Start to poll, if the signal polls."""

    def close(self) -> None:  # noqa: B027  (a hook)
        """Stop polling and release all resources."""

    def spec(self) -> dict[str, Any] | None:
        """Return ``{"class_path": ..., "init_args": {...}}``, from which another process builds the same signal.

        The supervisor plans with it after the training has exited. It never contains a secret. None if the signal
        exists in this process only (a Python callable).
        """
        return None

    def _spec(self, **arguments: Any) -> dict[str, Any]:
        """Return the spec of this class with ``arguments``."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"class_path": public_path(path), "init_args": arguments}

    @classmethod
    def from_zone(cls, zone: str | None) -> GridSignal:
        """Return the signal for ``zone``. ``grid="name:ZONE"`` calls this; the base class returns ``cls(zone)``.

        Args:
            zone: Text after the colon or the ``zone`` argument; None if neither is given.

        Raises:
            ValueError: If the zone is missing or unknown.

        """
        if zone is None:
            raise ValueError(
                f'`grid` should contain the zone, for example "typical:DE": {cls.__name__} has no default zone.'
            )
        return cls(zone)  # type: ignore[call-arg]

    def describe(self) -> str:
        """Return one line for the start-up block."""
        return f"{self.source}, {self.kind}, zone {self.zone or 'none'}" + (f" ({self.reason})" if self.reason else "")


def time_weighted_mean(
    value: Callable[[datetime, datetime], float | None], step: timedelta, start: datetime, end: datetime
) -> float | None:
    """Return the time-weighted mean from ``start`` to ``end`` in gCO2e/kWh; None if a part of it is unknown.

    Args:
        value: Function from the start and end of a part to its intensity in gCO2e/kWh, or None.
        step: Length of the parts, which begin at its multiples.
        start: Start, aware.
        end: End, aware. Not after ``start``: the value at ``start``.

    """
    width = step.total_seconds()
    first, last = start.timestamp(), end.timestamp()
    if last <= first:
        return value(start, start)
    total, at = 0.0, first
    while at < last:
        until = min(last, (math.floor(at / width + 1e-9) + 1) * width)
        known = value(datetime.fromtimestamp(at, timezone.utc), datetime.fromtimestamp(until, timezone.utc))
        if known is None:
            return None
        total += known * (until - at)
        at = until
    return total / (last - first)


def public_path(path: str) -> str:
    """Return the path under which a class of this package is exported, without its module.

    Specs in ledgers so remain valid when a module moves.

    Examples:
        >>> public_path("lightning_green.grid.TraceSignal")
        'lightning_green.grid.TraceSignal'
        >>> public_path("my_package.signals.MySignal")
        'my_package.signals.MySignal'

    """
    package = "lightning_green.grid."
    return package + path.rpartition(".")[2] if path.startswith(package) else path
