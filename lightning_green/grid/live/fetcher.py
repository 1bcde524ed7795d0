"""From queries to answers, through the cache of this machine and over HTTP."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from lightning_green.grid.live.authentication import Authentication
from lightning_green.grid.live.cache import Cache, Entry, cache_key
from lightning_green.grid.live.query import Answer, Failure, FetchResult, Query
from lightning_green.grid.series import utc
from lightning_green.utilities.http.errors import NotAllowedError, RefusedError, ServiceError
from lightning_green.utilities.http.transport import Limits, Response, Transport

_JITTER = random.SystemRandom()  # never the global generator, which a training's samples are drawn from
_MOST_JITTER_SECONDS = 30.0
_DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class _Fetched:
    """The outcome of one query."""

    answer: tuple[Answer, datetime] | None = None
    error: ServiceError | None = None
    clock_skew: timedelta | None = None


class Fetcher:
    """Answers queries from the cache, and over HTTP where the cached answer is due.

    Of several processes and threads that need the same answer, one sends the request. The requests of one round share
    a connection.

    Args:
        authentication: How requests are authenticated.
        check: Raises a ServiceError for an answer that must not be used, such as one about another zone.

    Attributes:
        limits: Time limits and retries of requests; may be changed before the first request.
        cache: Cache of answers and failures; may be replaced before the first request.

    """

    def __init__(self, authentication: Authentication, check: Callable[[Answer], None]) -> None:
        self.authentication = authentication
        self.limits = Limits()
        self.cache = Cache()
        self._check = check
        self._transport: Transport | None = None  # of the round in progress

    def cached(self, queries: Sequence[Query]) -> list[tuple[Answer, datetime]]:
        """Return the cached answers without a request and without waiting for a lock.

        Raises:
            RefusedError: If the credential is missing.

        """
        answers = []
        for query in queries:
            entry = self.cache.read(self._key(query))
            try:
                answers.append(self._cached_answer(query, entry))
            except ServiceError:
                continue  # written by another version of the parser; the next request replaces it
        return [answer for answer in answers if answer is not None]

    def fetch(self, queries: Sequence[Query], now: datetime, *, force: bool = False) -> FetchResult:
        """Request what is due, on the calling thread.

        Args:
            queries: The queries.
            now: The time.
            force: Whether to request what is not due, too.

        """
        outcomes: list[_Fetched] = []
        transport = self._transport = Transport(self.limits)
        try:
            for query in queries:
                if transport.is_canceled:
                    break
                outcomes.append(self._fetch_one(transport, query, now, force))
        finally:
            self._transport = None
            transport.close()
        return FetchResult(
            answers=tuple(outcome.answer for outcome in outcomes if outcome.answer is not None),
            failures=tuple(
                Failure(query.name, outcome.error, query.optional)
                for query, outcome in zip(queries, outcomes, strict=False)
                if outcome.error is not None
            ),
            clock_skew=next((outcome.clock_skew for outcome in outcomes if outcome.clock_skew is not None), None),
            interrupted=transport.is_canceled,
        )

    def seconds_to_next_fetch(self, queries: Sequence[Query], now: datetime) -> float:
        """Return the seconds until the first of ``queries`` is due; infinity if there is none.

        Raises:
            RefusedError: If the credential is missing.

        """
        due = [self.cache.read(self._key(query)).not_before for query in queries]
        return min(due, default=float("inf")) - now.timestamp()

    def close(self) -> None:
        """End the round of requests in progress: its current request is not retried, and the others are not sent."""
        transport = self._transport
        if transport is not None:
            transport.cancel()

    def _fetch_one(self, transport: Transport, query: Query, now: datetime, force: bool) -> _Fetched:
        at, longest = now.timestamp(), max(query.every.total_seconds(), _DAY_SECONDS) + 60.0
        error: ServiceError | None = None
        try:
            key = self._key(query)
            entry = self.cache.read(key)
            if force or entry.is_due(at, longest):
                with self.cache.lock(key):
                    entry = self.cache.read(key)  # another process may have asked in the meantime
                    if force or entry.is_due(at, longest):
                        entry, fetched = self._request(transport, query, entry, now)
                        if fetched.error is None or not transport.is_canceled:
                            self.cache.write(key, entry)  # a request that was canceled is no failure of the service
                        if fetched.error is None:
                            return fetched
                        error = fetched.error
            if error is None and entry.error:
                error = ServiceError(entry.error)
            return _Fetched(self._cached_answer(query, entry), error)
        except ServiceError as failure:
            return _Fetched(error=failure)

    def _cached_answer(self, query: Query, entry: Entry) -> tuple[Answer, datetime] | None:
        if entry.body is None or entry.fetched_at is None:
            return None
        return self._parse(query, entry.body), utc(entry.fetched_at)

    def _request(self, transport: Transport, query: Query, entry: Entry, now: datetime) -> tuple[Entry, _Fetched]:
        """Send the request; return the new cache entry and the outcome."""
        try:
            response = self._send(transport, query, entry)
            body = entry.body if response.unchanged else response.body
            answer = self._parse(query, body)  # an unusable body is not cached
        except ServiceError as error:
            return entry.failed(error, now.timestamp()), _Fetched(error=error)
        every = query.every.total_seconds()
        # Due at the next change of the data, with jitter so that the machines of a site do not ask in the same second.
        jitter = _JITTER.uniform(0.0, min(_MOST_JITTER_SECONDS, every / 10))
        due = (now.timestamp() // every + 1) * every + jitter
        server_time = response.server_time
        skew = None if server_time is None else datetime.now(timezone.utc) - server_time
        new_entry = entry.succeeded(body, now.timestamp(), due, response.validators or entry.validators)
        return new_entry, _Fetched((answer, utc(now.timestamp())), clock_skew=skew)

    def _send(self, transport: Transport, query: Query, entry: Entry) -> Response:
        # Validators belong to one address. With an identity, the cached body may come from an earlier address.
        validators = entry.validators if entry.body is not None and not query.identity else None
        headers = self.authentication.headers(transport)
        hint = self.authentication.hint()
        try:
            return transport.get(query.url, query.params, headers, validators, hint=hint)
        except (RefusedError, NotAllowedError):
            if not self.authentication.renewable:
                raise
        headers = self.authentication.headers(transport, renew=True)
        return transport.get(query.url, query.params, headers, validators, hint=hint)

    def _parse(self, query: Query, body: Any) -> Answer:
        answer = query.parse(body)
        self._check(answer)
        return answer

    def _key(self, query: Query) -> str:
        identity = query.identity or f"{query.url}?{sorted(query.params.items())}"
        credential = self.authentication.credential()
        return cache_key(identity, credential.digest() if credential is not None else "")
