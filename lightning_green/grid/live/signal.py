"""What every live service has in common: polling, memory, staleness, and silence towards the training."""

from __future__ import annotations

import random
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from typing_extensions import override

from lightning_green.grid.errors import WrongZoneError
from lightning_green.grid.live.answer import Answer, Point, Query, shown
from lightning_green.grid.live.cache import Cache, Entry, cache_key
from lightning_green.grid.live.poller import Message, Poller, start_poller
from lightning_green.grid.live.snapshot import WARN_AGE, Snapshot
from lightning_green.grid.series import utc
from lightning_green.grid.signal import GridSignal, Reading, SignalKind
from lightning_green.grid.spec import grid_from_spec
from lightning_green.planning.forecast import Forecast
from lightning_green.utilities.durations import format_duration, parse_duration
from lightning_green.utilities.http.errors import NotAllowedError, RefusedError, ServiceError
from lightning_green.utilities.http.secret import Secret
from lightning_green.utilities.http.transport import Limits, Transport

MAX_AGE = "4h"
FIRST_ANSWER_SECONDS = 8.0
"""How long :meth:`LiveSignal.start`, before the training, waits for a first answer."""
_SHORTEST_WAIT, _LONGEST_WAIT = 5.0, 900.0
_SKEW = timedelta(minutes=10)
_DICE = random.SystemRandom()  # never Python's common generator: a training's samples come from that one


class LiveSignal(GridSignal):
    """Base of the signals that ask somebody else.

    :meth:`start` reads the cache and begins to poll, in a process of its own; :meth:`intensity` and :meth:`forecast`
    answer from memory. Whatever goes wrong, they answer with the best known value, in the order of
    :meth:`~lightning_green.grid.live.snapshot.Snapshot.find`, and at last with None, on which a scheduler runs now.

    A subclass says what to ask (:meth:`queries`) and with which credential (:meth:`credential`, :meth:`headers`).

    Args:
        source: Short name for logs and the ledger.
        zone: What the user asked for, or None.
        kind: What the numbers mean.
        step: How long one value holds.
        arguments: The constructor's arguments, for :meth:`spec`; never a secret.
        max_age: Values older than this are not taken for "now".

    Attributes:
        limits: Time limits and retries of the transport; may be changed before :meth:`start`.
        cache: Where answers are kept; may be changed before :meth:`start`.
        reason: Why this source was chosen, for the start-up block; empty where the user named it.

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
        self.limits = Limits()
        self.cache = Cache()
        self.reason = ""
        self.problem: str | None = None
        self._arguments = arguments
        self._snapshot = Snapshot(step)
        self._failing: dict[str, str] = {}
        self._news: deque[str] = deque(maxlen=100)
        self._told: set[str] = set()
        self._stop = threading.Event()
        self._answered = threading.Event()
        self._asker: Poller | None = None
        self._thread: threading.Thread | None = None
        self._transport: Transport | None = None
        self._refreshing = threading.Lock()
        self._clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)

    @abstractmethod
    def queries(self, now: datetime) -> Sequence[Query]:
        """Return what to ask at ``now``; may raise a ServiceError where that cannot be known."""

    def credential(self) -> Secret | None:
        """Return the credential, None where none is needed; raises RefusedError where it is missing."""
        return None

    def headers(self, transport: Transport, *, renew: bool) -> dict[str, str]:
        """Return the headers that carry the credential; ``renew`` after the old ones were not accepted."""
        return {}

    renewable = False
    """Whether a refused request is worth one new log-in."""

    @override
    def intensity(self, at: datetime) -> Reading | None:
        return self._snapshot.reading(at, self.max_age, self.kind, self.source, self.zone)

    @override
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        return self._snapshot.forecast(now, horizon, self.max_age, str(self.kind))

    def known(self) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
        """Return all values in hand: measured and estimated ones, and predictions."""
        snapshot = self._snapshot
        return snapshot.past, snapshot.ahead

    @override
    def resolution(self) -> timedelta:
        return self.step

    @override
    def news(self) -> list[str]:
        found = []
        while self._news:
            found.append(self._news.popleft())
        return found

    @override
    def spec(self) -> dict[str, Any] | None:
        return self._spec(**self._arguments)

    @override
    def describe(self) -> str:
        return super().describe() + (f" ({self.reason})" if self.reason else "")

    @override
    def start(self) -> None:
        """Begin to poll; what the cache or the source says is waited for up to :data:`FIRST_ANSWER_SECONDS`.

        This is before the training, which would otherwise begin with nothing known.
        """
        self.begin()
        self.wait_for_first_answer(FIRST_ANSWER_SECONDS)

    def begin(self) -> None:
        """Begin to poll, and wait for nothing."""
        if self._thread is None:
            self._stop = threading.Event()  # a new one: the thread of an earlier start may still be about to end
            self._answered.clear()
            self._thread = threading.Thread(
                target=self._poll, args=(self._stop,), name=f"lightning-green {self.source}", daemon=True
            )
            self._thread.start()

    def wait_for_first_answer(self, seconds: float) -> None:
        """Wait until the cache or the source has said what holds now, or everything was asked, or time is over."""
        self._answered.wait(max(0.0, seconds))

    @override
    def close(self) -> None:
        """Stop polling; a request under way is given up at its next wait."""
        self._stop.set()
        if self._asker is not None:
            self._asker.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)
        elif self._thread is None:
            self._let_go()
        self._thread = None

    @override
    def bind_clock(self, now: Callable[[], datetime]) -> None:
        self._clock = now

    def recall(self, now: datetime) -> None:
        """Take in what the cache holds, without asking anybody and without waiting."""
        try:
            queries, credential = self.queries(now), self.credential()
        except ServiceError:
            return
        answers = []
        for query in queries:
            entry = self.cache.read(_key(query, credential))
            if entry.body is not None and entry.fetched_at is not None:
                try:
                    answers.append((self._parse(query, entry.body), utc(entry.fetched_at)))
                except ServiceError:
                    continue  # kept by another version of the parser; asking will bring a new one
        if answers:
            self._snapshot = self._snapshot.merged(answers, now)

    def refresh(self, now: datetime | None = None, *, force: bool = False) -> list[str]:
        """Ask what is due, on the calling thread, and return what went wrong, a sentence each.

        Args:
            now: The time; None for the clock's.
            force: Ask even what is not due.

        """
        now = now or self._clock()
        with self._refreshing:
            self._transport = self._transport or Transport(self.limits, self._stop)
            answers, failures = [], {}
            try:
                queries = self.queries(now)
            except ServiceError as error:
                queries, failures = [], {"zone": (False, error)}
            for query in queries:
                answer, error_or_none = self._ask(query, now, force)
                if answer is not None:
                    answers.append(answer)
                if error_or_none is not None:
                    failures[query.name] = (query.optional, error_or_none)
            if answers:
                self._snapshot = self._snapshot.merged(answers, now)
            self._report(failures, now)
        return [str(error) for _, error in failures.values()]

    def _ask(
        self, query: Query, now: datetime, force: bool
    ) -> tuple[tuple[Answer, datetime] | None, ServiceError | None]:
        """Return the answer in hand, new or old, and what went wrong."""
        at, longest = now.timestamp(), max(query.every.total_seconds(), 86400.0) + 60.0
        entry, error = Entry(), None
        try:
            key = _key(query, self.credential())
            entry = self.cache.read(key)
            if force or entry.due(at, longest):
                with self.cache.lock(key):
                    entry = self.cache.read(key)  # another process may have asked while we waited
                    if force or entry.due(at, longest):
                        entry, error = self._fetch(query, entry, now)
                        self.cache.write(key, entry)
            if error is None and entry.error:
                error = ServiceError(entry.error)
            if entry.body is None or entry.fetched_at is None:
                return None, error
            return (self._parse(query, entry.body), utc(entry.fetched_at)), error
        except ServiceError as failure:
            return None, failure

    def _fetch(self, query: Query, entry: Entry, now: datetime) -> tuple[Entry, ServiceError | None]:
        assert self._transport is not None
        try:
            for renew in (False, True):
                try:
                    headers = self.headers(self._transport, renew=renew)
                    # what the server compares with is the copy of this very address
                    validators = entry.validators if entry.body is not None and not query.identity else None
                    response = self._transport.get(query.url, query.params, headers, validators)
                    break
                except (RefusedError, NotAllowedError):
                    if renew or not self.renewable:
                        raise
            body = entry.body if response.unchanged else response.body
            self._parse(query, body)  # only what can be used is kept
        except ServiceError as error:
            return entry.failed(error, now.timestamp()), error
        self._compare_clocks(response.server_time)
        every = query.every.total_seconds()
        # at the next change of the data, and not all machines of a site in the same second
        due = (now.timestamp() // every + 1) * every + _DICE.uniform(0.0, min(30.0, every / 10))
        validators = response.validators or entry.validators
        return entry.succeeded(body, now.timestamp(), due, validators), None

    def _parse(self, query: Query, body: Any) -> Answer:
        answer = query.parse(body)
        if answer.zone is not None and self.zone is not None and not self.same_zone(answer.zone):
            raise WrongZoneError(f"{self.source} was asked for zone {self.zone} and answers for {shown(answer.zone)}")
        return answer

    def same_zone(self, answered: str) -> bool:
        """Return whether ``answered`` is the zone that was asked for."""
        return self.zone is not None and answered.casefold() == self.zone.casefold()

    def _report(self, failures: dict[str, tuple[bool, ServiceError]], now: datetime) -> None:
        for name, (optional, error) in failures.items():
            if self._failing.get(name) != type(error).__name__ and str(error) not in self._told:
                instead = "there is no forecast of its own" if optional else self._bridge(now)
                self._news.append(f"{self.source}: {error}; {instead}.")
                self._told.add(str(error))
        for name in set(self._failing) - set(failures):
            self._news.append(f"{self.source} answers again ({name}).")
            self._told.clear()
        self._failing = {name: type(error).__name__ for name, (_, error) in failures.items()}
        needed = [error for optional, error in failures.values() if not optional]
        self.problem = str(needed[0]) if needed else None
        if self.cache.problem is not None and "cache" not in self._told:
            self._told.add("cache")
            self._news.append(self.cache.problem)

    def _bridge(self, now: datetime) -> str:
        found = self._snapshot.find(now, self.max_age)
        if found is None:
            return "nothing is known now, so the run does not wait"
        if found.quality == "forecast":
            return "the forecast in hand bridges the gap"
        if found.quality == "estimated" and found.age >= timedelta(days=1):
            return "the same hour of an earlier day stands in"
        age = format_duration(found.age.total_seconds())
        return f"the last value, {age} old, stands in" if found.age > WARN_AGE else "the last value stands"

    def _compare_clocks(self, server_time: datetime | None) -> None:
        if server_time is None:
            return
        skew = datetime.now(timezone.utc) - server_time
        if abs(skew) > _SKEW and "clock" not in self._told:
            self._told.add("clock")
            ahead = "ahead of" if skew > timedelta(0) else "behind"
            amount = format_duration(abs(skew.total_seconds()))
            self._news.append(f"This machine's clock is {amount} {ahead} {self.source}'s; check the time of both.")

    def _poll(self, stop: threading.Event) -> None:
        # Asking (TLS, JSON, tables) holds the interpreter's lock for milliseconds at a time, for which a step of the
        # training would wait: it is done in a process of its own, and what comes back is arrays.
        apart = abs(self._clock() - datetime.now(timezone.utc)) < timedelta(minutes=1)
        asker = start_poller(self) if apart else None
        if asker is not None:
            self._asker = asker
            asker.follow(self._take, stop)
            if self._asker is asker:
                self._asker = None
        if not stop.is_set():  # there is no such process, or it died
            self.remember()
            self._answered_if_known()
        while not stop.is_set():
            wait = self._guarded(self.refresh)
            self._answered.set()
            stop.wait(wait)
        if stop is self._stop:
            self._let_go()

    def _take(self, message: Message) -> None:
        """Take over what the polling process found."""
        self._snapshot, self.problem, self.zone = message.snapshot, message.problem, message.zone
        self._news.extend(message.news)
        self._answered.set() if message.asked else self._answered_if_known()

    def _answered_if_known(self) -> None:
        found = self._snapshot.find(self._clock(), self.max_age)
        if found is not None and found.age <= self.max_age:
            self._answered.set()

    def message(self, *, asked: bool) -> Message:
        """Return what this signal knows and has to tell, for the process that it polls for."""
        return Message(self._snapshot, self.problem, self.zone, self.news(), asked)

    def ask_now(self) -> None:
        """Ask at once, due or not, where a process of its own polls."""
        if self._asker is not None:
            self._asker.ask()

    def remember(self) -> None:
        """Take in what the cache holds; never raises."""
        self._guarded(self.recall)

    def poll_once(self, *, force: bool = False) -> float:
        """Ask what is due (or everything) and return the seconds until the next time; never raises."""
        return self._guarded(lambda now: self.refresh(now, force=force))

    def _guarded(self, ask: Callable[[datetime], object]) -> float:
        """Ask, and return the seconds until there is something to ask again; whatever happens, the thread lives on."""
        now = self._clock()
        try:
            ask(now)
            return self._seconds_to_next(now)
        except Exception as error:  # noqa: BLE001  (a mistake of ours would end the polling for good, in silence)
            self.problem = f"an unexpected {type(error).__name__}"
            if self.problem not in self._told:
                self._told.add(self.problem)
                self._news.append(f"{self.source}: {self.problem} while asking; {self._bridge(now)}.")
            return _LONGEST_WAIT

    def _let_go(self) -> None:
        with self._refreshing:
            if self._transport is not None:
                self._transport.close()
                self._transport = None

    def _seconds_to_next(self, now: datetime) -> float:
        try:
            credential = self.credential()
            due = [self.cache.read(_key(query, credential)).not_before for query in self.queries(now)]
        except ServiceError:
            return _LONGEST_WAIT
        soonest = min(due, default=now.timestamp() + _LONGEST_WAIT) - now.timestamp()
        return min(max(soonest, _SHORTEST_WAIT), _LONGEST_WAIT)

    def __reduce__(self) -> tuple[Any, ...]:
        # threads and secrets belong to their process; a copy reads its credential again and polls once it is started
        return grid_from_spec, (self.spec(),)


def _key(query: Query, credential: Secret | None) -> str:
    identity = query.identity or f"{query.url}?{sorted(query.params.items())}"
    return cache_key(identity, credential.digest() if credential is not None else "")
