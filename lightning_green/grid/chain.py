"""Several sources for one place: the first that answers is taken."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from lightning_green.grid.live.signal import FIRST_ANSWER_SECONDS, MAX_AGE, LiveSignal
from lightning_green.grid.signal import GridSignal, Reading
from lightning_green.grid.spec import grid_from_spec
from lightning_green.planning.forecast import Forecast
from lightning_green.utilities.durations import parse_duration

_OLDEST = parse_duration(MAX_AGE)


class ChainSignal(GridSignal):
    """A source and what stands in for it, in order. All have to be of one kind.

    Each question goes to the first source that has an answer of its own: measured values, an estimate of the source, or
    a forecast, which a source that has failed for four hours may no longer answer with. Only if none has one, stand-ins
    (that old forecast, the same hour of an earlier day) are taken. Each change of source is told once.

    Args:
        signal: The source that is preferred.
        fallback: What stands in for it, in order.

    Raises:
        TypeError: If one of them is not a signal.
        ValueError: If they are of different kinds, or there is no fallback.

    Example::

        ChainSignal(ElectricityMapsSignal("DE"), fallback=[EnergyChartsSignal("DE"), TypicalDay("DE")])

    """

    def __init__(self, signal: Any, fallback: list[Any]) -> None:
        parts = [grid_from_spec(part) if isinstance(part, dict) else part for part in (signal, *fallback)]
        self.signals: list[GridSignal] = [part for part in parts if part is not None]
        if len(self.signals) < 2 or len(self.signals) != len(parts):
            raise ValueError("`fallback` should name at least one source, and none of a chain's sources may be None.")
        for part in self.signals:
            if not isinstance(part, GridSignal):
                raise TypeError(
                    f"A chain's sources should be GridSignals or their specs, got {part!r}; as grid=[...], a list may "
                    "hold whatever `grid` takes."
                )
        kinds = {str(part.kind) for part in self.signals}
        if len(kinds) > 1:
            raise ValueError(
                "`fallback` should be of the same kind as the first source; average and marginal, direct and lifecycle "
                f"are never mixed. Got {', '.join(f'{part.source}: {part.kind}' for part in self.signals)}."
            )
        self.kind = self.signals[0].kind
        self.zone = next((part.zone for part in self.signals if part.zone is not None), None)
        self._current = self.signals[0]
        self._news: deque[str] = deque(maxlen=100)

    @property
    def source(self) -> str:  # type: ignore[override]
        """The source that answered last."""
        return self._current.source

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        """What is wrong with the preferred source, or None."""
        return self.signals[0].problem

    @override
    def intensity(self, at: datetime) -> Reading | None:
        stand_in: tuple[GridSignal, Reading] | None = None
        for signal in self.signals:
            reading = signal.intensity(at)
            if reading is None:
                continue
            if not is_stand_in(reading, at) and not _is_outdated(signal, reading.quality, reading.issued_at, at):
                self._take(signal)
                return reading
            stand_in = stand_in or (signal, reading)
        if stand_in is None:
            return None
        self._take(stand_in[0])
        return stand_in[1]

    @override
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        best: Forecast | None = None
        for signal in self.signals:
            found = signal.forecast(now, horizon)
            if found is None:
                continue
            # one that reaches an hour ahead is a forecast; the rest is the present and a history
            reaches = found.end is not None and found.end > now + timedelta(hours=1)
            if reaches and not _is_outdated(signal, "forecast", found.issued_at, now):
                return found
            best = best or found
        return best

    @override
    def resolution(self) -> timedelta:
        return min(signal.resolution() for signal in self.signals)

    @override
    def covers_until(self) -> datetime | None:
        ends = [signal.covers_until() for signal in self.signals]
        known = [end for end in ends if end is not None]
        return max(known) if len(known) == len(ends) else None

    @override
    def news(self) -> list[str]:
        found = [sentence for signal in self.signals for sentence in signal.news()]
        while self._news:
            found.append(self._news.popleft())
        return found

    @override
    def bind_clock(self, now: Callable[[], datetime]) -> None:
        for signal in self.signals:
            signal.bind_clock(now)

    @override
    def start(self) -> None:
        for signal in self.signals:
            if isinstance(signal, LiveSignal):
                signal.begin()  # side by side: a source that is silent does not keep the others waiting
        deadline = time.monotonic() + FIRST_ANSWER_SECONDS
        for signal in self.signals:
            if isinstance(signal, LiveSignal):
                signal.wait_for_first_answer(deadline - time.monotonic())
            else:
                signal.start()

    @override
    def close(self) -> None:
        for signal in self.signals:
            signal.close()

    def refresh(self, now: datetime | None = None, *, force: bool = False) -> list[str]:
        """Ask every live source what is due, on the calling thread, and return what went wrong."""
        failures = []
        for signal in self.signals:
            if isinstance(signal, LiveSignal):
                failures += signal.refresh(now, force=force)
        return failures

    @override
    def spec(self) -> dict[str, Any] | None:
        specs = [signal.spec() for signal in self.signals]
        if any(spec is None for spec in specs):
            return None
        return self._spec(signal=specs[0], fallback=specs[1:])

    @override
    def describe(self) -> str:
        others = ", ".join(signal.source for signal in self.signals[1:])
        return f"{self.signals[0].describe()}; else {others}"

    def _take(self, signal: GridSignal) -> None:
        if signal is not self._current:
            self._news.append(f"The grid source changes from {self._current.source} to {signal.source}.")
            self._current = signal


def is_stand_in(reading: Reading, at: datetime) -> bool:
    """Return whether a reading is that of an earlier day."""
    return reading.quality == "estimated" and at - reading.measured_at >= timedelta(hours=12)


def _is_outdated(signal: GridSignal, quality: str, issued_at: datetime | None, at: datetime) -> bool:
    """Return whether this is a forecast that a failing source has not renewed for so long that another goes first."""
    if quality != "forecast" or signal.problem is None or issued_at is None:
        return False
    return at - issued_at > _OLDEST
