"""HTTP as the signals need it: limits on everything, retries with jitter, and no secret anywhere but in its header."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import tenacity

from lightning_green.utilities.http.errors import (
    LimitedError,
    NotAllowedError,
    RefusedError,
    RejectedError,
    ServiceError,
    UnavailableError,
    UnreachableError,
    UnreadableError,
)

_HOPS = 3
_DICE = random.SystemRandom()
_LONGEST_RETRY_AFTER = timedelta(days=1)


@dataclass(frozen=True)
class Limits:
    """How long and how often.

    Args:
        connect: Seconds to a connection.
        read: Seconds between two pieces of the answer.
        total: Seconds for the whole answer; a server that drips is cut off.
        attempts: Tries for one request.
        wait: Longest wait in seconds before the second try, of which a random part is waited; doubled for each further
            one.
        patience: The longest ``Retry-After`` in seconds that is waited for on the spot.
        size: Largest answer in bytes.

    """

    connect: float = 5.0
    read: float = 15.0
    total: float = 30.0
    attempts: int = 3
    wait: float = 1.0
    patience: float = 20.0
    size: int = 5_000_000


@dataclass(frozen=True)
class Response:
    """A JSON answer.

    Args:
        body: The decoded JSON; None where nothing changed.
        unchanged: Whether the server said that our copy is still right (304).
        validators: ``ETag`` and ``Last-Modified``, for the next conditional request.
        server_time: The server's clock, or None where it does not say.

    """

    body: Any
    unchanged: bool
    validators: dict[str, str]
    server_time: datetime | None


class Transport:
    """A client for one service. It is used on one thread, and never on the training's.

    Args:
        limits: How long and how often.
        stop: Set to give up at once: no waits, no further tries.

    """

    def __init__(self, limits: Limits | None = None, stop: threading.Event | None = None) -> None:
        self.limits = limits or Limits()
        self._stop = stop or threading.Event()
        self._client: httpx.Client | None = None
        self._stream: Any = None

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        validators: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> Response:
        """Return the JSON that ``url`` answers with.

        Args:
            url: Address without a query string.
            params: Query string.
            headers: Headers, the secret among them.
            validators: What an earlier :class:`Response` carried, to ask only for what is new.
            auth: User and password for HTTP Basic.

        Raises:
            ServiceError: If there is no usable answer; the kinds are in :mod:`lightning_green.grid.errors`.

        """
        sent = dict(headers or {})
        for name, header in (("etag", "If-None-Match"), ("last_modified", "If-Modified-Since")):
            if validators and validators.get(name):
                sent[header] = validators[name]
        limits = self.limits
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(limits.attempts),
            wait=_Wait(limits),
            retry=tenacity.retry_if_exception(self._worth_another_try),
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(self._once, url, dict(params or {}), sent, auth)

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _worth_another_try(self, error: BaseException) -> bool:
        if not isinstance(error, ServiceError) or not error.retry or self._stop.is_set():
            return False
        if error.retry_after is not None:
            return error.retry_after.total_seconds() <= self.limits.patience
        # a limit without a time to wait: seconds will not help, and another request would make it worse
        return not isinstance(error, LimitedError)

    def _once(
        self, url: str, params: dict[str, str], headers: dict[str, str], auth: tuple[str, str] | None
    ) -> Response:
        deadline = time.monotonic() + self.limits.total
        late = threading.Event()
        cut = threading.Timer(self.limits.total, self._cut, (late,))
        cut.daemon = True
        cut.start()
        try:
            self._client = self._client or self._new_client()
            target = httpx.URL(url).copy_merge_params(params)
            for _ in range(_HOPS + 1):
                request = self._client.build_request(
                    "GET", target, headers=headers, extensions={"trace": self._note_connection}
                )
                basic = httpx.BasicAuth(*auth) if auth else None
                reply = self._client.send(request, stream=True, auth=basic)
                try:
                    if not reply.has_redirect_location:
                        return self._read(reply, deadline)
                    target = _same_host(target, reply)
                finally:
                    reply.close()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
            if late.is_set():
                raise UnreachableError(_too_slow(_host(url), self.limits)) from None
            what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
            # the library's own message may hold the address with all of its query
            raise UnreachableError(f"{_host(url)} {what} ({type(error).__name__})") from None
        except (OSError, ValueError) as error:  # certificates or a proxy of the environment that cannot be used
            raise UnreachableError(
                f"{_host(url)} cannot be reached: check the proxy and certificate settings ({type(error).__name__})"
            ) from None
        finally:
            cut.cancel()
        raise UnreadableError(f"{_host(url)} redirects in a circle")

    def _new_client(self) -> httpx.Client:
        timeout = httpx.Timeout(self.limits.read, connect=self.limits.connect)
        # redirects are followed by hand: httpx would carry a header of ours to any host
        return httpx.Client(timeout=timeout, follow_redirects=False, headers={"User-Agent": "lightning-green"})

    def _note_connection(self, event: str, info: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._stream = info["return_value"]

    def _cut(self, late: threading.Event) -> None:
        """Break the connection: a read's own limit starts anew with each byte, so a server could drip for days."""
        late.set()
        wire = None if self._stream is None else self._stream.get_extra_info("socket")
        if isinstance(wire, socket.socket):
            with suppress(OSError):
                socket.socket.shutdown(wire, socket.SHUT_RDWR)

    def _read(self, reply: httpx.Response, deadline: float) -> Response:
        host = str(reply.url.host)
        _check_status(reply, host)
        validators = {
            name: reply.headers[header]
            for name, header in (("etag", "etag"), ("last_modified", "last-modified"))
            if header in reply.headers
        }
        server_time = _http_date(reply.headers.get("date"))
        if reply.status_code == 304:
            return Response(None, True, validators, server_time)
        data = bytearray()
        for piece in reply.iter_bytes():  # as they come: collected ones would hide a server that drips
            data += piece
            if len(data) > self.limits.size:
                raise UnreadableError(f"{host} answers with more than {self.limits.size / 1e6:g} MB")
            if time.monotonic() > deadline:
                raise UnreachableError(_too_slow(host, self.limits))
        return Response(read_json(bytes(data), host), False, validators, server_time)


class _Wait(tenacity.wait.wait_base):
    """What the server asks for, else exponential with jitter."""

    def __init__(self, limits: Limits) -> None:
        self._longest = tenacity.wait_exponential(multiplier=limits.wait, max=20.0)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, ServiceError) and error.retry_after is not None:
            return error.retry_after.total_seconds()
        # tenacity's own jitter draws from Python's common generator, which a training's samples come from
        return _DICE.uniform(0.0, self._longest(retry_state))


def _check_status(reply: httpx.Response, host: str) -> None:
    status = reply.status_code
    if status in (200, 304):
        return
    after = retry_after(reply.headers.get("retry-after"), datetime.now(timezone.utc))
    if status == 401:
        raise RefusedError(f"{host} does not accept the credential (401)")
    if status == 403:
        raise NotAllowedError(f"{host} does not allow this with the credential's plan (403)")
    if status == 429:
        raise LimitedError(f"{host} says that there were too many requests (429)", after)
    if status >= 500:
        raise UnavailableError(f"{host} has a problem of its own ({status})", after)
    if status in (400, 404, 422):
        raise RejectedError(f"{host} does not know what was asked for, most often the zone ({status})")
    raise UnreadableError(f"{host} answers with the unexpected status {status}")


def _same_host(target: httpx.URL, reply: httpx.Response) -> httpx.URL:
    where = target.join(reply.headers["location"])
    if where.host != target.host or (where.scheme, where.port) != (target.scheme, target.port):
        upgrade = where.host == target.host and (target.scheme, where.scheme) == ("http", "https")
        if not upgrade:
            raise UnreadableError(f"{target.host} redirects to another host, which is not followed")
    return where


def read_json(data: bytes, host: str = "the source") -> Any:
    """Return what ``data`` says in JSON.

    Raises:
        UnreadableError: If it is not JSON.

    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        kind = "HTML" if data.lstrip()[:1] == b"<" else "something"
        raise UnreadableError(f"{host} answers with {kind} that is not JSON") from None


def retry_after(raw: str | None, now: datetime) -> timedelta | None:
    """Return what a ``Retry-After`` header asks for, at most a day; None where it says nothing that can be read.

    Args:
        raw: Seconds, or an HTTP date.
        now: The time that a date is compared with.

    """
    if raw is None:
        return None
    text = raw.strip()
    if text.isascii() and text.isdigit():
        wait = timedelta(seconds=min(int(text[:9]), int(_LONGEST_RETRY_AFTER.total_seconds())))
    else:
        date = _http_date(text)
        if date is None:
            return None
        wait = date - now
    return min(max(wait, timedelta(0)), _LONGEST_RETRY_AFTER)


def _http_date(raw: str | None) -> datetime | None:
    if raw is None:
        return None
    try:
        date = parsedate_to_datetime(raw)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date


def _too_slow(host: str, limits: Limits) -> str:
    return f"{host} took more than {limits.total:g} s for its answer"


def _host(url: str) -> str:
    try:
        return str(httpx.URL(url).host) or "the source"
    except httpx.InvalidURL:
        return "the source"
