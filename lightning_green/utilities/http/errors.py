"""Errors of HTTP services. Callers catch them; none of them reaches a training."""

from __future__ import annotations

from datetime import timedelta


class ServiceError(Exception):
    """A service gave no usable answer.

    The message is one clause without a final period. It contains no secret, no query string and no text of the server.

    Attributes:
        retry: Whether another attempt within seconds may succeed.
        pause: Time until the next request; doubled with each consecutive failure if ``retry`` is set.
        retry_after: Wait that the server asked for, or None.

    """

    retry = False
    pause = timedelta(minutes=10)

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnreachableError(ServiceError):
    """The connection failed, or the answer took too long."""

    retry = True
    pause = timedelta(minutes=1)


class UnavailableError(ServiceError):
    """The server reports an error of its own (5xx)."""

    retry = True
    pause = timedelta(minutes=1)


class LimitedError(ServiceError):
    """Too many requests (429)."""

    retry = True
    pause = timedelta(minutes=15)


class RefusedError(ServiceError):
    """The credential is missing or not accepted (401)."""

    pause = timedelta(hours=1)


class NotAllowedError(ServiceError):
    """The credential's plan does not include the request, or the service refuses requests from this machine (403)."""

    pause = timedelta(hours=1)


class RejectedError(ServiceError):
    """The server does not accept the request (400, 404, 422), most often because of the zone."""

    pause = timedelta(minutes=30)


class UnreadableError(ServiceError):
    """The answer is too large, is not JSON, or does not have the documented form."""
