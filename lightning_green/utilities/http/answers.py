"""Status, headers and content of an answer, and the error of each that cannot be used."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from lightning_green.utilities.http.errors import (
    LimitedError,
    NotAllowedError,
    RefusedError,
    RejectedError,
    UnavailableError,
    UnreadableError,
)

_MOST_LEVELS = 50
_BLOCKED = "the service may block the address of this machine"  # a request without a credential
_LONGEST_RETRY_AFTER = timedelta(days=1)


def check_status(reply: httpx.Response, host: str, has_credential: bool, hint: str = "") -> None:
    """Raise the error of an answer whose status is neither 200 nor 304.

    Args:
        reply: The answer.
        host: Host of the service, for the message.
        has_credential: Whether the request contained a credential.
        hint: Likely reason of a 401 or 403, for the message; empty if unknown.

    Raises:
        ServiceError: Of the class for the status; see ``lightning_green.utilities.http.errors``.

    """
    status = reply.status_code
    if status in (200, 304):
        return
    after = retry_after(reply.headers.get("retry-after"), datetime.now(timezone.utc))
    if status == 401:
        problem = "does not accept the credential" if has_credential else "requires a credential"
        raise RefusedError(f"{host} {problem} (401){f': {hint}' if hint else ''}")
    if status == 403:
        reason = "the plan of the credential does not include it" if has_credential else _BLOCKED
        raise NotAllowedError(f"{host} refuses the request (403): {reason}{f', or {hint}' if hint else ''}")
    if status == 429:
        raise LimitedError(f"{host} reports too many requests (429)", after)
    if status >= 500:
        raise UnavailableError(f"{host} reports a server error ({status})", after)
    if status in (400, 404, 422):
        raise RejectedError(f"{host} does not accept the request, most often because of the zone ({status})")
    raise UnreadableError(f"{host} answers with the unexpected status {status}")


def unpacker(encoding: str, host: str) -> Callable[[bytes, int], bytes]:
    """Return a function from a part of an answer and a number of bytes to at most that much of its content.

    httpx would unpack a part as a whole: a small answer can have gigabytes of content.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return lambda piece, most: piece
    if name not in ("gzip", "x-gzip"):
        raise UnreadableError(f"{host} answers in an encoding that was not requested")
    decompressor = zlib.decompressobj(wbits=31)

    def unpack(piece: bytes, most: int) -> bytes:
        try:
            return decompressor.decompress(piece, most)
        except zlib.error:
            raise UnreadableError(f"{host} answers with damaged gzip data") from None

    return unpack


def read_json(data: bytes, host: str = "the source") -> Any:
    """Return the decoded JSON.

    Raises:
        UnreadableError: If it is not JSON, or is nested too deeply.

    """
    try:
        body = json.loads(data)
    except RecursionError:
        raise UnreadableError(f"{host} answers with JSON that is nested too deeply") from None
    except ValueError:
        content = "HTML" if data.lstrip()[:1] == b"<" else "text"
        raise UnreadableError(f"{host} answers with {content} that is not JSON") from None
    level: list[Any] = [body]
    for _ in range(_MOST_LEVELS):
        level = [
            item
            for one in level
            if isinstance(one, (dict, list))
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return body
    raise UnreadableError(f"{host} answers with JSON that is nested too deeply")


def retry_after(raw: str | None, now: datetime) -> timedelta | None:
    """Return the wait of a ``Retry-After`` header, at most a day; None if it cannot be parsed.

    Args:
        raw: Seconds, or an HTTP date.
        now: Time that a date is relative to.

    """
    if raw is None:
        return None
    text = raw.strip()
    if text.isascii() and text.isdigit():
        wait = timedelta(seconds=min(int(text[:9]), int(_LONGEST_RETRY_AFTER.total_seconds())))
    else:
        date = http_date(text)
        if date is None:
            return None
        wait = date - now
    return min(max(wait, timedelta(0)), _LONGEST_RETRY_AFTER)


def http_date(raw: str | None) -> datetime | None:
    """Return the time of an HTTP date header, aware; None if it cannot be parsed."""
    if raw is None:
        return None
    try:
        date = parsedate_to_datetime(raw)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date
