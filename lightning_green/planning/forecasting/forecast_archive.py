"""The forecasts and intensities that a run has received, stored in a file to survive restarts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecast import Forecast
from lightning_green.planning.forecasting.correct import HORIZON, remember
from lightning_green.planning.forecasting.correction import FIT_DAYS, DailyCorrection
from lightning_green.planning.forecasting.features import DAY
from lightning_green.planning.forecasting.history import HOUR, hourly
from lightning_green.utilities.files import write_json
from lightning_green.utilities.reading import read_json

Array = NDArray[np.float64]

FORECAST_ARCHIVE_FILE = "forecasts.json"
"""File name in the run directory."""
VERSION = 1
MAX_GRIDS = 3
"""Number of grids kept; the least recently used one is dropped."""
HISTORY_HOURS = FIT_DAYS * DAY
DIGITS = 3
MAX_INTENSITY = 1e6
"""Highest intensity in gCO2e/kWh that is read from a file."""
_LAST_HOUR = 9_028_944
"""The year 3000."""


@dataclass
class _GridRecord:
    """The issuances and the hourly intensities of one grid."""

    issuances: list[Forecast] = field(default_factory=list)
    history: dict[int, float] = field(default_factory=dict)
    daily: DailyCorrection = field(default_factory=DailyCorrection)

    def version(self) -> tuple[list[datetime | None], int | None]:
        """Return a value that changes when an issuance or a later intensity is added."""
        return [issuance.issued_at for issuance in self.issuances], max(self.history, default=None)

    def add(self, forecast: Forecast) -> None:
        """Add a forecast and the intensities of its history; drop old entries."""
        self.issuances = remember(self.issuances, forecast)
        assert forecast.history_values is not None
        first, actual = hourly(forecast.history_seconds, forecast.history_values, full=True)
        self.history.update(_finite_hours(first, actual))
        newest = max(self.history, default=0)
        self.history = {hour: value for hour, value in self.history.items() if hour > newest - HISTORY_HOURS}

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON data."""
        first = min(self.history, default=0)
        hours = range(first, max(self.history, default=-1) + 1)
        issuances = []
        for issuance in self.issuances:
            begin, values = hourly(issuance.seconds, issuance.values, full=False)
            assert issuance.issued_at is not None
            row = [round(value, DIGITS) for value in values[:HORIZON].tolist()]
            issuances.append({"at": issuance.issued_at.timestamp(), "first": begin, "values": row})
        history = [round(self.history[hour], DIGITS) if hour in self.history else None for hour in hours]
        return {"first": first, "history": history, "issues": issuances}

    @classmethod
    def from_json(cls, content: dict[str, Any], kind: str) -> _GridRecord:
        """Return the record written by `to_json`; raises if the content has another form."""
        issuances = [
            Forecast(
                [_to_time(_hour(row["first"]) + lead) for lead in range(len(row["values"]))],
                np.array([_intensity(value) for value in row["values"]]),
                kind=kind,
                issued_at=datetime.fromtimestamp(_hour(row["at"] / HOUR) * HOUR + row["at"] % HOUR, timezone.utc),
            )
            for row in content["issues"]
        ]
        history = [math.nan if value is None else _intensity(value) for value in content["history"]]
        return cls(issuances, _finite_hours(_hour(content["first"]), history))


class ForecastArchive:
    """The forecasts of the last 28 days and the intensities of the last 60, by grid, in memory and in a file.

    A paused run consists of several processes: the training, the supervisor that plans again during the pause, and the
    training after the restart. Each process opens the same file and so learns from the forecasts of the earlier ones.
    Only one process plans at a time.

    The JSON file is small: hourly means, at most one issuance per hour, four days each, at most three grids (one day of
    hourly issuances takes about 15 kB, 28 days 0.4 MB). It is replaced atomically. If it cannot be read or written,
    planning continues without it and `problem` contains the reason.

    Args:
        path: The file, for example ``forecasts.json`` in the run directory. None keeps everything in memory.

    Attributes:
        problem: Why the file cannot be read or written, or None.

    Examples:
        ```python
        archive = ForecastArchive(run_dir / FORECAST_ARCHIVE_FILE)
        newest = archive.extend_history("DE", newest)
        answer = plan(job, correct(newest, archive.issuances("DE", newest.kind), now), now)
        archive.add("DE", newest)
        ```

    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.problem: str | None = None
        self._grids: dict[str, _GridRecord] = {}
        self._read()

    def issuances(self, grid: str, kind: str) -> list[Forecast]:
        """Return the stored forecasts of a grid, the newest last.

        Args:
            grid: Name of the grid, such as its zone.
            kind: Kind of intensity, see `Forecast`.

        """
        record = self._grids.get(f"{grid} {kind}")
        return [] if record is None else list(record.issuances)

    def daily_correction(self, grid: str, kind: str) -> DailyCorrection:
        """Return the correction of a grid, which is fitted once a day. It is not stored in the file.

        Args:
            grid: Name of the grid.
            kind: Kind of intensity.

        """
        record = self._grids.get(f"{grid} {kind}")
        return DailyCorrection() if record is None else record.daily

    def extend_history(self, grid: str, forecast: Forecast) -> Forecast:
        """Return ``forecast`` with its history extended backwards by stored intensities.

        Args:
            grid: Name of the grid.
            forecast: Newest forecast of the grid.

        """
        record = self._grids.get(f"{grid} {forecast.kind}")
        if record is None or not record.history:
            return forecast
        begins = [*forecast.history_times[:1], *forecast.times[:1]]
        until = min((int(time.timestamp() // HOUR) for time in begins), default=max(record.history) + 1)
        older = sorted(hour for hour in record.history if hour < until)
        values = forecast.history_values
        assert values is not None
        return replace(
            forecast,
            history_times=(*(_to_time(hour) for hour in older), *forecast.history_times),
            history_values=np.concatenate(([record.history[hour] for hour in older], values)),
        )

    def add(self, grid: str, forecast: Forecast | None) -> None:
        """Store ``forecast`` and its history. The file is written only if they contain something new.

        Args:
            grid: Name of the grid.
            forecast: Newest forecast of the grid; None is ignored.

        """
        if forecast is None:
            return
        key = f"{grid} {forecast.kind}"
        record = self._grids.pop(key, _GridRecord())
        self._grids[key] = record  # the most recently used grid is last
        while len(self._grids) > MAX_GRIDS:
            del self._grids[next(iter(self._grids))]
        before = record.version()
        record.add(forecast)
        if record.version() != before:
            self._write()

    def _read(self) -> None:
        if self.path is None:
            return
        try:
            content = read_json(self.path)
            if content["version"] != VERSION:
                raise ValueError(f"unsupported version {content['version']}")
            self._grids = {
                str(key): _GridRecord.from_json(record, kind=str(key).rpartition(" ")[2])
                for key, record in content["grids"].items()
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            self.problem = f"{self.path} cannot be read, so earlier forecasts are ignored: {error!r}."

    def _write(self) -> None:
        if self.path is None:
            return
        content = {"version": VERSION, "grids": {key: record.to_json() for key, record in self._grids.items()}}
        try:
            write_json(self.path, content, indent=None, durable=False)
        except OSError as error:
            self.problem = f"{self.path} cannot be written, so forecasts are lost at the next restart: {error}."


def _hour(value: Any) -> int:
    """Return a number of hours since the epoch; raises ValueError if it is not between 1970 and 3000."""
    if not 0 <= value <= _LAST_HOUR:
        raise ValueError(f"expected an hour since the epoch, got {value!r:.40}")
    return int(value)


def _intensity(value: Any) -> float:
    """Return an intensity; raises ValueError if no grid can have it."""
    if not -MAX_INTENSITY <= value <= MAX_INTENSITY:
        raise ValueError(f"expected an intensity in gCO2e/kWh, got {value!r:.40}")
    return float(value)


def _to_time(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * HOUR, timezone.utc)


def _finite_hours(first: int, values: Sequence[float] | Array) -> dict[int, float]:
    """Return the finite values by hour, the first of which belongs to the hour ``first``."""
    return {first + index: float(value) for index, value in enumerate(values) if math.isfinite(value)}
