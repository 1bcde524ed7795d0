"""Errors of answers that arrived but cannot be used."""

from __future__ import annotations

from datetime import timedelta

from lightning_green.utilities.http.errors import ServiceError


class NoDataError(ServiceError):
    """The answer is well-formed and has no usable value."""


class WrongZoneError(ServiceError):
    """The answer is about another zone than the requested one."""

    pause = timedelta(minutes=30)


class WrongUnitError(ServiceError):
    """The values are not carbon intensities: a percentile, another unit."""

    pause = timedelta(hours=1)


class InventedDataError(ServiceError):
    """The source marks the values as artificial (a sandbox)."""

    pause = timedelta(hours=1)
