"""Recorded carbon intensities of a zone and the forecasts issued for it, read from CSV files."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Scope = Literal["lifecycle", "direct"]
COLUMNS = {"lifecycle": "carbon_intensity", "direct": "carbon_intensity_direct"}


@dataclass(frozen=True)
class ZoneArchive:
    """Hourly intensities of a zone and the forecasts issued for it. Times are hours since 1970 (UTC).

    Args:
        zone: Name of the zone.
        first: Hour of the first value.
        actual: Recorded carbon intensity of every hour in gCO2e/kWh, shape ``(n,)``.
        issued: Hour in which each forecast was issued, ascending, shape ``(m,)``.
        forecasts: Predicted intensity of the hours from ``issued`` on, shape ``(m, horizon)``.
        scope: ``"lifecycle"`` or ``"direct"``.

    """

    zone: str
    first: int
    actual: Array
    issued: NDArray[np.int64]
    forecasts: Array
    scope: Scope = "lifecycle"

    @property
    def end(self) -> int:
        """Hour after the last value."""
        return self.first + len(self.actual)


def read_archive(actual: Path, forecast: Path | None = None, scope: Scope = "lifecycle") -> ZoneArchive:
    """Read the archive of one zone.

    Args:
        actual: CSV with the columns ``datetime`` (hourly, ISO 8601 with a time zone) and ``carbon_intensity``, or
            ``carbon_intensity_direct`` for ``scope="direct"``.
        forecast: CSV with the columns ``issued_at``, ``kind`` and ``h00``, ``h01``, ...; None without forecasts.
        scope: Intensities to read.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a time is naive, out of order, or not at a full hour; an hour is missing; a value is negative or
            not a number; a column is missing. The message contains the file and the line.

    """
    if scope not in COLUMNS:
        raise ValueError(f'`kind` should be "lifecycle" or "direct", got {scope!r}.')
    column = COLUMNS[scope]
    hours: list[int] = []
    values: list[float] = []
    for where, row in _rows(actual, ("datetime", column)):
        hour = _hour(where, "datetime", row["datetime"])
        if hours and hour != hours[-1] + 1:
            raise ValueError(f"{where}: `datetime` should be an hour after the row before it, got {row['datetime']}.")
        hours.append(hour)
        values.append(_value(where, column, row[column]))
    if not hours:
        raise ValueError(f"{actual} has no rows; it should contain hourly values.")
    issued: list[int] = []
    table: list[list[float]] = []
    leads: list[str] = []
    for where, row in _rows(forecast, ("issued_at", "kind", "h00")) if forecast is not None else ():
        if row["kind"] != scope:
            if row["kind"] not in COLUMNS:
                raise ValueError(f'{where}: `kind` should be "lifecycle" or "direct", got {row["kind"]!r}.')
            continue
        hour = _hour(where, "issued_at", row["issued_at"])
        if issued and hour <= issued[-1]:
            raise ValueError(f"{where}: `issued_at` should be later than in the row before it of the same kind.")
        leads = leads or _leads(where, row)
        issued.append(hour)
        table.append([_value(where, name, row[name]) for name in leads])
    if forecast is not None and not issued:
        raise ValueError(f"{forecast} has no forecast of the kind {scope!r}.")
    zone = re.sub(r"_\d{4}$", "", actual.stem)
    horizon = len(table[0]) if table else 0
    matrix = np.array(table, dtype=np.float64).reshape(len(table), horizon)
    return ZoneArchive(zone, hours[0], np.array(values), np.array(issued, dtype=np.int64), matrix, scope)


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the location of each row of a CSV file and its fields by column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or ()
            for name in needed:
                if name not in names:
                    raise ValueError(f"{path} has no column `{name}`; it has {', '.join(names) or 'none'}.")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise ValueError(f"{where}: the row should have {len(names)} fields.")
                yield where, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8 ({error}).") from error


def _leads(where: str, row: dict[str, str]) -> list[str]:
    """Return the columns of the hours ahead; raises if one is missing, since all later ones would shift."""
    names = [name for name in row if re.fullmatch(r"h\d+", name)]
    for lead, name in enumerate(names):
        if int(name[1:]) != lead:
            raise ValueError(f"{where}: the hours ahead should be h00, h01, ... without a gap, got `{name}` too early.")
    return names


def _hour(where: str, column: str, text: str) -> int:
    try:
        # Python 3.10 does not read a trailing Z.
        time = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
    except ValueError:
        raise ValueError(f"{where}: `{column}` should be like 2021-07-01T00:00:00Z, got {text!r}.") from None
    if time.utcoffset() is None:
        raise ValueError(f"{where}: `{column}` should have a time zone, got {text!r}; write it in UTC with a Z.")
    seconds = time.astimezone(timezone.utc).timestamp()
    if seconds % 3600:
        raise ValueError(f"{where}: `{column}` should be a full hour, got {text!r}.")
    return int(seconds // 3600)


def _value(where: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{where}: `{column}` should be a number, 0 or more, got {text!r}.")
    return value
