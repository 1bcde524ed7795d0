"""Errors of HTTP services. Callers catch them; none of them ever reaches a training."""

from __future__ import annotations

from datetime import timedelta


class ServiceError(Exception):
    """A service gave no usable answer.

    The message is one sentence for people. It contains no secret, no query string and no text of the server.

    Attributes:
        retry: Whether asking again within seconds may help.
        pause: How long to leave the service alone after it; doubled with each consecutive failure if ``retry`` is set.
        retry_after: The wait that the server asked for, or None.

    """

    retry = False
    pause = timedelta(minutes=10)

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnreachableError(ServiceError):
    """No connection, a connection that broke, or an answer that took too long."""

    retry = True
    pause = timedelta(minutes=1)


class UnavailableError(ServiceError):
    """The server says that it has a problem (5xx)."""

    retry = True
    pause = timedelta(minutes=1)


class LimitedError(ServiceError):
    """Too many requests (429)."""

    retry = True
    pause = timedelta(minutes=15)


class RefusedError(ServiceError):
    """No credential, or one that is not accepted (401)."""

    pause = timedelta(hours=1)


class NotAllowedError(ServiceError):
    """The credential's plan does not include what was asked (403)."""

    pause = timedelta(hours=1)


class RejectedError(ServiceError):
    """The server does not understand the question (400, 404, 422): most often the zone."""

    pause = timedelta(minutes=30)


class UnreadableError(ServiceError):
    """An answer that is too large, no JSON, or not of the documented form."""
