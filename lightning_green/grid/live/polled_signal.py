"""Signals whose values change while a training runs, from any kind of source."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from typing_extensions import override

from lightning_green.grid.live.polling import FIRST_ANSWER_SECONDS, Poller
from lightning_green.grid.live.query import FetchResult
from lightning_green.grid.live.reports import FailureReports, describe_substitute
from lightning_green.grid.live.snapshot import Snapshot
from lightning_green.grid.signal import GridSignal, Reading, SignalKind, time_weighted_mean
from lightning_green.grid.spec import grid_from_spec
from lightning_green.planning.forecast import Forecast
from lightning_green.utilities.durations import parse_duration

MAX_AGE = "4h"


class PolledSignal(GridSignal):
    """Base class of signals that poll a source.

    ``start`` loads the cache and starts a polling thread. ``intensity`` and ``forecast`` answer from
    memory. If the source fails, they return the best known value in the order of
    ``Snapshot.find``, and finally None, for which a scheduler runs now.

    A subclass implements ``fetch`` and ``seconds_to_next_fetch``. For an HTTP service, subclass
    ``LiveSignal`` instead.

    Args:
        source: Short name for logs and the ledger.
        zone: Zone that the user named, or None.
        kind: Kind of the values.
        step: Interval that one value is valid for.
        arguments: Arguments of the subclass's constructor, for ``spec``; never a secret.
        max_age: Values older than this are not used for the present.

    Attributes:
        snapshot: All known values. The polling thread replaces it; other threads only read it.
        poller: The polling thread.
        reports: Messages about failures and recoveries.
        clock: Function that returns the present time.

    """

    def __init__(
        self,
        source: str,
        zone: str | None,
        kind: SignalKind,
        step: timedelta,
        arguments: dict[str, Any],
        max_age: str | timedelta = MAX_AGE,
    ) -> None:
        self.source = source
        self.zone = zone
        self.kind = kind
        self.step = step
        self.max_age = parse_duration(max_age, "max_age")
        self.snapshot = Snapshot(step)
        self.reports = FailureReports(source)
        self.poller = Poller(self, f"lightning-green {source}", self.reports.report_bug)
        self.clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
        self._arguments = arguments
        self._refresh_lock = threading.Lock()

    @abstractmethod
    def fetch(self, now: datetime, *, force: bool = False) -> FetchResult:
        """Request what is due from the source, on the calling thread. A failure is returned, not raised.

        Args:
            now: The time.
            force: Whether to request what is not due, too.

        """

    @abstractmethod
    def seconds_to_next_fetch(self, now: datetime) -> float:
        """Return the seconds until something is due."""

    def load_cache(self, now: datetime) -> bool:
        """Load cached answers, if there is a cache, and return whether a current value is known."""
        return self.snapshot.is_current(now, self.max_age)

    def archive_hours(self, now: datetime) -> None:
        """Keep the values that are known now for later, if there is a cache."""

    def refresh(self, now: datetime | None = None, *, force: bool = False) -> list[str]:
        """Request what is due, on the calling thread, and update the known values.

        Args:
            now: The time; None for the clock's.
            force: Whether to request what is not due, too.

        Returns:
            One sentence for each request that failed.

        """
        now = now or self.clock()
        with self._refresh_lock:
            result = self.fetch(now, force=force)
            if result.answers:
                self.snapshot = self.snapshot.merged(result.answers, now)
                self.archive_hours(now)
            if not result.interrupted:
                self.reports.update(result.failures, describe_substitute(self.snapshot.find(now, self.max_age)))
                self.reports.report_clock_skew(result.clock_skew)
        return [str(failure.error) for failure in result.failures]

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        """One sentence about the current failure, or None."""
        return self.reports.problem

    @override
    def intensity(self, at: datetime) -> Reading | None:
        return self.snapshot.reading(at, self.max_age, self.kind, self.source, self.zone)

    @override
    def measured_mean(self, start: datetime, end: datetime) -> float | None:
        snapshot = self.snapshot
        return time_weighted_mean(lambda at, until: snapshot.value_of(at, self.max_age), self.resolution(), start, end)

    @override
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        return self.snapshot.forecast(now, horizon, self.max_age, str(self.kind))

    @override
    def resolution(self) -> timedelta:
        return self.step

    @override
    def pop_messages(self) -> list[str]:
        return self.reports.pop_messages()

    @override
    def spec(self) -> dict[str, Any] | None:
        return self._spec(**self._arguments)

    @override
    def bind_clock(self, now: Callable[[], datetime]) -> None:
        self.clock = now

    @override
    def start(self) -> None:
        """Start to poll and wait up to 8 s for the first answer, so that the training begins with a known value."""
        self.poller.start()
        self.poller.wait_for_first_answer(FIRST_ANSWER_SECONDS)

    @override
    def close(self) -> None:
        self.poller.stop()

    def __reduce__(self) -> tuple[Any, ...]:
        # Threads and secrets are not copied: the copy reads its credential again and polls once it is started.
        return grid_from_spec, (self.spec(),)
