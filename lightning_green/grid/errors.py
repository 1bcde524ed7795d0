"""What can go wrong between us and a service, by name. None of these ever reaches a training."""

from __future__ import annotations

from datetime import timedelta


class GridError(Exception):
    """A source gave no usable answer.

    The message is one sentence for people, without any secret, any address' query, or any text of the server's.

    Attributes:
        retry: Whether asking again within seconds may help.
        pause: How long the source is left alone after it; doubled with each failure in a row where ``retry`` is set.
        retry_after: How long the server itself asked us to wait, or None.

    """

    retry = False
    pause = timedelta(minutes=10)

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnreachableError(GridError):
    """No connection, a connection that broke, or an answer that took too long."""

    retry = True
    pause = timedelta(minutes=1)


class UnavailableError(GridError):
    """The server says that it has a problem (5xx)."""

    retry = True
    pause = timedelta(minutes=1)


class LimitedError(GridError):
    """Too many requests (429)."""

    retry = True
    pause = timedelta(minutes=15)


class RefusedError(GridError):
    """No credential, or one that is not accepted (401)."""

    pause = timedelta(hours=1)


class NotAllowedError(GridError):
    """The credential's plan does not include what was asked (403)."""

    pause = timedelta(hours=1)


class RejectedError(GridError):
    """The server does not understand the question (400, 404, 422): most often the zone."""

    pause = timedelta(minutes=30)


class UnreadableError(GridError):
    """An answer that is too large, no JSON, or not of the documented form."""


class NoDataError(GridError):
    """A well-formed answer without a single usable value."""


class WrongZoneError(GridError):
    """An answer about another zone than the one that was asked for."""

    pause = timedelta(minutes=30)


class WrongUnitError(GridError):
    """Numbers that are no carbon intensity: a percentile, another unit."""

    pause = timedelta(hours=1)


class InventedDataError(GridError):
    """Numbers that the source itself marks as invented (a sandbox)."""

    pause = timedelta(hours=1)
