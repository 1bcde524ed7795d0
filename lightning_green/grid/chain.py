"""Several sources for one place, in order of preference."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from lightning_green.grid.live.polled_signal import MAX_AGE, PolledSignal
from lightning_green.grid.live.polling import FIRST_ANSWER_SECONDS
from lightning_green.grid.signal import GridSignal, Reading, time_weighted_mean
from lightning_green.grid.spec import grid_from_spec
from lightning_green.planning.forecast import Forecast
from lightning_green.utilities.durations import parse_duration

_MAX_FORECAST_AGE = parse_duration(MAX_AGE)


class ChainSignal(GridSignal):
    """A source and its fallbacks, in order of preference. All must be of one kind.

    The first source with a current answer is used: a measured value, an estimate of the source, or a forecast that is
    less than four hours old or whose source does not fail. If no source has one, the first older answer is used: an
    old forecast, or the same hour of an earlier day. Each change of source is reported once.

    ``measured_mean`` does not use static sources, such as an annual mean, unless all sources are static.

    Args:
        signal: Preferred source.
        fallback: Other sources, in order.

    Raises:
        TypeError: If an element is not a signal.
        ValueError: If the sources are of different kinds, or there is no fallback.

    Examples:
        ```python
        ChainSignal(ElectricityMapsSignal("DE"), fallback=[EnergyChartsSignal("DE"), TypicalDay("DE")])
        ```

    """

    def __init__(self, signal: Any, fallback: list[Any]) -> None:
        parts = [grid_from_spec(part) if isinstance(part, dict) else part for part in (signal, *fallback)]
        self.signals: list[GridSignal] = [part for part in parts if part is not None]
        if len(self.signals) < 2 or len(self.signals) != len(parts):
            raise ValueError("`fallback` should contain at least one source, and no source of a chain may be None.")
        for part in self.signals:
            if not isinstance(part, GridSignal):
                raise TypeError(
                    f"The sources of a chain should be GridSignals or their specs, got {part!r}; the list grid=[...] "
                    "accepts everything that `grid` accepts."
                )
        kinds = {str(part.kind) for part in self.signals}
        if len(kinds) > 1:
            raise ValueError(
                "`fallback` should be of the same kind as the first source; average and marginal, direct and lifecycle "
                f"are never mixed. Got {', '.join(f'{part.source}: {part.kind}' for part in self.signals)}."
            )
        self.kind = self.signals[0].kind
        self.is_static = all(part.is_static for part in self.signals)
        self.zone = next((part.zone for part in self.signals if part.zone is not None), None)
        self._current = self.signals[0]
        self._messages: deque[str] = deque(maxlen=100)

    @property
    def source(self) -> str:  # type: ignore[override]
        """Name of the source in use."""
        return self._current.source

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        """One sentence about the current failure of the preferred source, or None."""
        return self.signals[0].problem

    @override
    def intensity(self, at: datetime) -> Reading | None:
        found = self._select(at)
        if found is None:
            return None
        self._use(found[0])
        return found[1]

    @override
    def mean(self, start: datetime, end: datetime) -> float | None:
        def value(at: datetime, until: datetime) -> float | None:
            found = self._select(at)  # reports no change: the source of a past hour is not the source in use
            return None if found is None else found[1].value

        return time_weighted_mean(value, self.resolution(), start, end)

    @override
    def measured_mean(self, start: datetime, end: datetime) -> float | None:
        if self.is_static:
            return self.mean(start, end)
        parts = [part for part in self.signals if not part.is_static]

        def value(at: datetime, until: datetime) -> float | None:  # each hour from the first source that knows it
            return next((mean for part in parts if (mean := part.measured_mean(at, until)) is not None), None)

        return time_weighted_mean(value, self.resolution(), start, end)

    @override
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        found = self._select_forecast(now, horizon)
        return None if found is None else found[1]

    @override
    def forecast_signal(self, now: datetime, horizon: timedelta) -> GridSignal | None:
        found = self._select_forecast(now, horizon)
        return None if found is None else found[0].forecast_signal(now, horizon)

    @override
    def resolution(self) -> timedelta:
        return min(signal.resolution() for signal in self.signals)

    @override
    def covers_until(self) -> datetime | None:
        ends = [signal.covers_until() for signal in self.signals]
        known = [end for end in ends if end is not None]
        return max(known) if len(known) == len(ends) else None

    @override
    def pop_messages(self) -> list[str]:
        found = [message for signal in self.signals for message in signal.pop_messages()]
        while self._messages:
            found.append(self._messages.popleft())
        return found

    @override
    def bind_clock(self, now: Callable[[], datetime]) -> None:
        for signal in self.signals:
            signal.bind_clock(now)

    @override
    def start(self) -> None:
        polled = [signal for signal in self.signals if isinstance(signal, PolledSignal)]
        for signal in polled:
            signal.poller.start()  # all before the first wait, so that a source without an answer delays no other
        deadline = time.monotonic() + FIRST_ANSWER_SECONDS
        for signal in polled:
            signal.poller.wait_for_first_answer(deadline - time.monotonic())
        for other in self.signals:
            if not isinstance(other, PolledSignal):
                other.start()

    @override
    def close(self) -> None:
        for signal in self.signals:
            signal.close()

    def refresh(self, now: datetime | None = None, *, force: bool = False) -> list[str]:
        """Request what is due from every polled source, on the calling thread; see ``PolledSignal.refresh``."""
        failures = []
        for signal in self.signals:
            if isinstance(signal, PolledSignal):
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

    def _select(self, at: datetime) -> tuple[GridSignal, Reading] | None:
        """Return the source to use for ``at`` and its reading."""
        older: tuple[GridSignal, Reading] | None = None
        for signal in self.signals:
            reading = signal.intensity(at)
            if reading is None:
                continue
            if not _is_from_earlier_day(reading, at) and not _is_outdated(
                signal, reading.quality, reading.issued_at, at
            ):
                return signal, reading
            older = older or (signal, reading)
        return older

    def _select_forecast(self, now: datetime, horizon: timedelta) -> tuple[GridSignal, Forecast] | None:
        """Return the source to use for the coming hours and its forecast."""
        older: tuple[GridSignal, Forecast] | None = None
        for signal in self.signals:
            found = signal.forecast(now, horizon)
            if found is None:
                continue
            # A forecast of less than an hour is only the present value and a history.
            reaches_ahead = found.end is not None and found.end > now + timedelta(hours=1)
            if reaches_ahead and not _is_outdated(signal, "forecast", found.issued_at, now):
                return signal, found
            older = older or (signal, found)
        return older

    def _use(self, signal: GridSignal) -> None:
        if signal is not self._current:
            self._messages.append(f"The grid source changes from {self._current.source} to {signal.source}.")
            self._current = signal


def _is_from_earlier_day(reading: Reading, at: datetime) -> bool:
    """Return whether a reading for ``at`` was taken from an earlier day."""
    return reading.quality == "estimated" and at - reading.measured_at >= timedelta(hours=12)


def _is_outdated(signal: GridSignal, quality: str, issued_at: datetime | None, at: datetime) -> bool:
    """Return whether a failing source has not renewed this forecast for so long that another source is preferred."""
    if quality != "forecast" or signal.problem is None or issued_at is None:
        return False
    return at - issued_at > _MAX_FORECAST_AGE
