"""Base class of the signals of an HTTP service."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from lightning_green.grid.errors import WrongZoneError
from lightning_green.grid.live.archive import Archive
from lightning_green.grid.live.authentication import Authentication
from lightning_green.grid.live.fetcher import Fetcher
from lightning_green.grid.live.parsing import truncate_text
from lightning_green.grid.live.polled_signal import MAX_AGE, PolledSignal
from lightning_green.grid.live.polling import LONGEST_WAIT, SHORTEST_WAIT
from lightning_green.grid.live.query import Answer, Failure, FetchResult, Query
from lightning_green.grid.signal import SignalKind
from lightning_green.utilities.http.errors import ServiceError


class LiveSignal(PolledSignal):
    """Base class of signals that ask an HTTP service for JSON.

    A subclass implements ``queries``. Polling, the cache shared by all processes of a machine, the hourly values of the
    last 60 days that any of them has seen, retries, staleness and failure reports are inherited; see ``PolledSignal``.

    Args:
        source: Short name for logs and the ledger.
        zone: Zone that the user named, or None.
        kind: Kind of the values.
        step: Interval that one value is valid for.
        arguments: Arguments of the subclass's constructor, for ``spec``; never a secret.
        max_age: Values older than this are not used for the present.
        authentication: How requests are authenticated; None for services without credentials.

    Attributes:
        fetcher: Sends the requests and keeps the cache.

    Examples:
        ```python
        class MyUtilitySignal(LiveSignal):
            def __init__(self, zone: str) -> None:
                kind = SignalKind("average", "direct")
                super().__init__("my-utility", zone, kind, timedelta(minutes=30), {"zone": zone})

            def queries(self, now: datetime) -> list[Query]:
                url = f"https://my-utility.example/co2/{self.zone}"
                return [Query("now", url, every=timedelta(minutes=30), parse=parse_body)]


        def parse_body(body: Any) -> Answer:
            rows = [
                (parse_time(row.get("time")), parse_value(row.get("g_per_kwh")), "measured") for row in parse_list(body)
            ]
            return require_points(Answer(past=collect_points(rows)))
        ```

    """

    def __init__(
        self,
        source: str,
        zone: str | None,
        kind: SignalKind,
        step: timedelta,
        arguments: dict[str, Any],
        max_age: str | timedelta = MAX_AGE,
        authentication: Authentication | None = None,
    ) -> None:
        super().__init__(source, zone, kind, step, arguments, max_age)
        self.fetcher = Fetcher(authentication or Authentication(), self._check_zone)
        own = {name: value for name, value in arguments.items() if name != "max_age"}
        self._archive = Archive(json.dumps([source, str(kind), own], sort_keys=True, default=str))

    @abstractmethod
    def queries(self, now: datetime) -> Sequence[Query]:
        """Return the queries for ``now``. This sends nothing; it may raise a ServiceError if they cannot be known."""

    def is_same_zone(self, zone: str) -> bool:
        """Return whether ``zone``, which an answer names, is the zone of this signal. Case does not matter."""
        return self.zone is None or zone.casefold() == self.zone.casefold()

    @override
    def load_cache(self, now: datetime) -> bool:
        try:
            answers = self.fetcher.cached(self.queries(now))
        except ServiceError:
            answers = []
        if answers:
            self.snapshot = self.snapshot.merged(answers, now)
        self.snapshot = self.snapshot.with_archive(self._archive.read(self.fetcher.cache, now))
        return super().load_cache(now)

    @override
    def fetch(self, now: datetime, *, force: bool = False) -> FetchResult:
        try:
            queries = self.queries(now)
        except ServiceError as error:
            return FetchResult(failures=(Failure("zone", error),))
        result = self.fetcher.fetch(queries, now, force=force)
        if self.fetcher.cache.problem is not None:
            self.reports.report_once("cache", self.fetcher.cache.problem)
        return result

    @override
    def archive_hours(self, now: datetime) -> None:
        hours = self.snapshot.complete_hours()
        if not self.snapshot.archive or not set(hours) <= set(self.snapshot.archive):
            self.snapshot = self.snapshot.with_archive(self._archive.add(self.fetcher.cache, hours, now))

    @override
    def seconds_to_next_fetch(self, now: datetime) -> float:
        try:
            seconds = self.fetcher.seconds_to_next_fetch(self.queries(now), now)
        except ServiceError:
            return LONGEST_WAIT
        return min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)

    @override
    def close(self) -> None:
        self.fetcher.close()
        super().close()
        self.fetcher.close()  # a round that the thread began between the two calls above

    def _check_zone(self, answer: Answer) -> None:
        if answer.zone is not None and not self.is_same_zone(answer.zone):
            zone = truncate_text(answer.zone)
            raise WrongZoneError(f"{self.source} was asked for zone {self.zone} and answers for {zone}")
