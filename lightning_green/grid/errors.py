"""Errors of a carbon-intensity source whose answer arrived but cannot be used."""

from __future__ import annotations

from datetime import timedelta

from lightning_green.utilities.http.errors import ServiceError


class NoDataError(ServiceError):
    """A well-formed answer without a single usable value."""


class WrongZoneError(ServiceError):
    """An answer about another zone than the one that was asked for."""

    pause = timedelta(minutes=30)


class WrongUnitError(ServiceError):
    """Numbers that are no carbon intensity: a percentile, another unit."""

    pause = timedelta(hours=1)


class InventedDataError(ServiceError):
    """Numbers that the source itself marks as invented (a sandbox)."""

    pause = timedelta(hours=1)
