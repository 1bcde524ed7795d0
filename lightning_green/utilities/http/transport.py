"""JSON over HTTP with limits on time and size, retries with jitter, and secrets in headers only."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

import httpx
import tenacity

from lightning_green.utilities.http.answers import check_status, http_date, read_json, unpacker
from lightning_green.utilities.http.errors import (
    LimitedError,
    RefusedError,
    ServiceError,
    UnreachableError,
    UnreadableError,
)

_MOST_REDIRECTS = 3
_JITTER = random.SystemRandom()  # never the global generator, which a training's samples are drawn from


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Args:
        connect: Seconds to connect.
        read: Seconds between two parts of the answer.
        total: Seconds for the whole answer. A server that sends it byte by byte is cut off.
        attempts: Attempts for one request.
        wait: Upper limit in seconds of the random wait before the second attempt; doubled for each further one.
        patience: Longest ``Retry-After`` in seconds that is waited for within the request.
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
        body: Decoded JSON; None if unchanged.
        unchanged: Whether the copy that the validators belong to is still valid (304).
        validators: ``ETag`` and ``Last-Modified``, for the next conditional request.
        server_time: Time of the server's clock, or None if not given.

    """

    body: Any
    unchanged: bool
    validators: dict[str, str]
    server_time: datetime | None


class Transport:
    """An HTTP client for one service, for one thread at a time.

    The client is created with the first request and reused, and all clients of a process share one TLS context.

    Args:
        limits: Limits of each request.

    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._canceled = threading.Event()
        self._in_use = threading.Lock()
        self._client: httpx.Client | None = None
        self._stream: Any = None

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        validators: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        hint: str = "",
    ) -> Response:
        """Return the JSON at ``url``.

        Args:
            url: Address without a query string.
            params: Query string.
            headers: Headers, including the credential. With headers, the address has to be https or on this machine.
            validators: Validators of an earlier ``Response``, for a conditional request.
            auth: User and password for HTTP Basic.
            hint: Likely reason of a 401 or 403, for the message; empty if unknown.

        Raises:
            ServiceError: If there is no usable answer; see ``lightning_green.utilities.http.errors``.

        """
        if self.is_canceled:
            raise UnreachableError(f"the connection to {_host(url)} is closed")
        if headers or auth:
            _check_confidential(url)
        sent = dict(headers or {})
        for name, header in (("etag", "If-None-Match"), ("last_modified", "If-Modified-Since")):
            if validators and validators.get(name):
                sent[header] = validators[name]
        limits = self.limits
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(limits.attempts),
            wait=_Wait(limits),
            retry=tenacity.retry_if_exception(self._should_retry),
            sleep=self._wait,
            reraise=True,
        )
        check = partial(check_status, host=_host(url), has_credential=bool(headers or auth), hint=hint)
        try:
            with self._in_use:
                return retrying(self._once, url, dict(params or {}), sent, auth, check)
        finally:
            if self._canceled.is_set():
                self.close()

    @property
    def is_canceled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._canceled.is_set()

    def close(self) -> None:
        """Close the connections. The next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def cancel(self) -> None:
        """Close the connections for good, from any thread.

        A request in progress ends without another attempt, and later requests raise ``UnreachableError``.
        """
        self._canceled.set()
        if self._in_use.acquire(blocking=False):  # else the request in progress closes them
            try:
                self.close()
            finally:
                self._in_use.release()

    def _wait(self, seconds: float) -> None:
        self._canceled.wait(seconds)

    def _should_retry(self, error: BaseException) -> bool:
        if not isinstance(error, ServiceError) or not error.retry or self._canceled.is_set():
            return False
        if error.retry_after is not None:
            return error.retry_after.total_seconds() <= self.limits.patience
        # Without a Retry-After, another request within seconds would make it worse.
        return not isinstance(error, LimitedError)

    def _once(
        self,
        url: str,
        params: dict[str, str],
        headers: dict[str, str],
        auth: tuple[str, str] | None,
        check: Callable[[httpx.Response], None],
    ) -> Response:
        late = threading.Event()
        cut = threading.Timer(self.limits.total, self._cut, (late,))
        cut.daemon = True
        try:
            # Before the limit begins: loading the certificates can take longer than an answer.
            self._client = self._client or self._new_client()
            deadline = time.monotonic() + self.limits.total
            cut.start()
            target = httpx.URL(url).copy_merge_params(params)
            for _ in range(_MOST_REDIRECTS + 1):
                request = self._client.build_request(
                    "GET", target, headers=headers, extensions={"trace": self._note_connection}
                )
                basic = httpx.BasicAuth(*auth) if auth else None
                reply = self._client.send(request, stream=True, auth=basic)
                try:
                    if not reply.has_redirect_location:
                        check(reply)
                        return self._read(reply, deadline)
                    target = _same_host(target, reply)
                finally:
                    reply.close()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
            if late.is_set():
                raise UnreachableError(_too_slow(_host(url), self.limits)) from None
            what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
            # The message of httpx may contain the address with its query string.
            raise UnreachableError(f"{_host(url)} {what} ({type(error).__name__})") from None
        except (OSError, ValueError) as error:  # unusable certificates or proxy in the environment
            raise UnreachableError(
                f"{_host(url)} cannot be reached: check the proxy and certificate settings ({type(error).__name__})"
            ) from None
        finally:
            cut.cancel()
        raise UnreadableError(f"{_host(url)} redirects too often")

    def _new_client(self) -> httpx.Client:
        timeout = httpx.Timeout(self.limits.read, connect=self.limits.connect)
        # Redirects are followed in _once: httpx would send custom headers, and so the credential, to any host.
        return httpx.Client(
            verify=_tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
            timeout=timeout,
            follow_redirects=False,
            headers={"User-Agent": "lightning-green", "Accept-Encoding": "gzip"},
            mounts=dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]")),  # without a proxy
        )

    def _note_connection(self, event: str, info: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._stream = info["return_value"]

    def _cut(self, late: threading.Event) -> None:
        """Break the connection. The read limit restarts with each byte, so it does not limit the whole answer."""
        late.set()
        connection = None if self._stream is None else self._stream.get_extra_info("socket")
        if isinstance(connection, socket.socket):
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _read(self, reply: httpx.Response, deadline: float) -> Response:
        host = str(reply.url.host)
        validators = {
            name: reply.headers[header]
            for name, header in (("etag", "etag"), ("last_modified", "last-modified"))
            if header in reply.headers
        }
        server_time = http_date(reply.headers.get("date"))
        if reply.status_code == 304:
            return Response(None, True, validators, server_time)
        data, unpack = bytearray(), unpacker(reply.headers.get("content-encoding", ""), host)
        for piece in reply.iter_raw():  # as they arrive, so that the deadline is checked
            data += unpack(piece, self.limits.size - len(data) + 1)
            if len(data) > self.limits.size:
                raise UnreadableError(f"{host} answers with more than {self.limits.size / 1e6:g} MB")
            if time.monotonic() > deadline:
                raise UnreachableError(_too_slow(host, self.limits))
        return Response(read_json(bytes(data), host), False, validators, server_time)


class _Wait(tenacity.wait.wait_base):
    """``Retry-After`` if the server sent one, else exponential with jitter."""

    def __init__(self, limits: Limits) -> None:
        self._longest = tenacity.wait_exponential(multiplier=limits.wait, max=20.0)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, ServiceError) and error.retry_after is not None:
            return error.retry_after.total_seconds()
        # tenacity's own jitter draws from Python's global generator.
        return _JITTER.uniform(0.0, self._longest(retry_state))


@lru_cache(maxsize=4)
def _tls_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Return the TLS context for a value of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``; loading certificates is slow."""
    return httpx.create_ssl_context()


def _check_confidential(url: str) -> None:
    """Raise if a credential would be sent over a network without encryption."""
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL:  # the request reports it
        return
    if target.scheme != "https" and not _is_loopback(target.host):
        raise RefusedError(f"the credential is sent over https only, and the address of {target.host} is http")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _same_host(target: httpx.URL, reply: httpx.Response) -> httpx.URL:
    where = target.join(reply.headers["location"])
    if where.host != target.host or (where.scheme, where.port) != (target.scheme, target.port):
        upgrade = where.host == target.host and (target.scheme, where.scheme) == ("http", "https")
        if not upgrade:
            raise UnreadableError(f"{target.host} redirects to another host, which is not allowed")
    return where


def _too_slow(host: str, limits: Limits) -> str:
    return f"{host} took more than {limits.total:g} s to answer"


def _host(url: str) -> str:
    try:
        return str(httpx.URL(url).host) or "the source"
    except httpx.InvalidURL:
        return "the source"
