"""The forecasts that a run has been given so far, kept in a file: what the next one is corrected by after a restart."""

from __future__ import annotations

import json
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
from lightning_green.planning.forecasting.correction import DAY, LEARN_DAYS
from lightning_green.planning.forecasting.history import HOUR, hourly
from lightning_green.utilities.files import write_json

Array = NDArray[np.float64]

ISSUES_FILE = "forecasts.json"
"""Name of the file in a run's folder."""
VERSION = 1
GRIDS = 3
"""How many grids are kept; the one that was not used for longest makes room."""
HISTORY_HOURS = LEARN_DAYS * DAY
DIGITS = 3


@dataclass
class _Kept:
    """What is kept of one grid."""

    issues: list[Forecast] = field(default_factory=list)
    history: dict[int, float] = field(default_factory=dict)


class Issues:
    """The forecasts of the last 28 days and the intensities of the last 60, by grid, in memory and in a file.

    A run that pauses is several processes: the training, the supervisor that plans on while it is out, and the training
    again. Each of them makes an object for the same file, and so learns from what the ones before it were told. Only
    one of them plans at a time.

    The file is JSON and small: hourly means, one issue for each hour at most, four days of each, three grids at most
    (a day of hourly issues is about 15 kB, 28 days of them 0.4 MB). It is replaced as a whole, so a reader never sees a
    part of it. A file that cannot be read or written costs what could have been learned, never a run: :attr:`problem`
    says what is wrong with it.

    Args:
        path: The file, ``forecasts.json`` in a run's folder for example; None to keep everything in memory.

    Attributes:
        problem: One sentence on what is wrong with the file, or None.

    Example::

        issues = Issues(run_folder / ISSUES_FILE)
        answer = plan(job, correct(issues.continued("DE", newest), issues.of("DE", newest.kind), now), now)
        issues.add("DE", newest)

    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.problem: str | None = None
        self._grids: dict[str, _Kept] = {}
        self._read()

    def of(self, grid: str, kind: str) -> list[Forecast]:
        """Return the issues of a grid so far, the newest last.

        Args:
            grid: Name of the grid, such as its zone.
            kind: What the numbers mean, see :class:`~lightning_green.planning.forecast.Forecast`.

        """
        kept = self._grids.get(f"{grid} {kind}")
        return [] if kept is None else list(kept.issues)

    def continued(self, grid: str, forecast: Forecast) -> Forecast:
        """Return ``forecast`` with the hours put before its history that earlier ones brought and it no longer has."""
        kept = self._grids.get(f"{grid} {forecast.kind}")
        if kept is None or not kept.history:
            return forecast
        begins = [*forecast.history_times[:1], *forecast.times[:1]]
        until = min((int(time.timestamp() // HOUR) for time in begins), default=max(kept.history) + 1)
        older = sorted(hour for hour in kept.history if hour < until)
        own = forecast.history_values
        assert own is not None
        return replace(
            forecast,
            history_times=(*(_time(hour) for hour in older), *forecast.history_times),
            history_values=np.concatenate(([kept.history[hour] for hour in older], own)),
        )

    def add(self, grid: str, forecast: Forecast | None) -> None:
        """Keep ``forecast``, and its history; what says nothing new is not written again."""
        if forecast is None:
            return
        key = f"{grid} {forecast.kind}"
        kept = self._grids.pop(key, _Kept())
        self._grids[key] = kept  # the last used one is last
        while len(self._grids) > GRIDS:
            del self._grids[next(iter(self._grids))]
        before = [issue.issued_at for issue in kept.issues], max(kept.history, default=None)
        kept.issues = remember(kept.issues, forecast)
        assert forecast.history_values is not None
        first, actual = hourly(forecast.history_seconds, forecast.history_values, full=True)
        kept.history.update(_known(first, actual))
        newest = max(kept.history, default=0)
        kept.history = {hour: value for hour, value in kept.history.items() if hour > newest - HISTORY_HOURS}
        if ([issue.issued_at for issue in kept.issues], max(kept.history, default=None)) != before:
            self._write()

    def _read(self) -> None:
        if self.path is None:
            return
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["version"] != VERSION:
                raise ValueError(f"it is of version {stored['version']}")
            self._grids = {str(key): _restored(str(key), kept) for key, kept in stored["grids"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.problem = f"{self.path} cannot be read, so earlier forecasts are not learned from: {error!r}."

    def _write(self) -> None:
        if self.path is None:
            return
        content = {"version": VERSION, "grids": {key: _stored(kept) for key, kept in self._grids.items()}}
        try:
            write_json(self.path, content, indent=None, durable=False)
        except OSError as error:
            self.problem = f"{self.path} cannot be written, so forecasts are not learned from after a restart: {error}."


def _time(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * HOUR, timezone.utc)


def _known(first: int, values: Sequence[float] | Array) -> dict[int, float]:
    """Return the value of every hour that has one."""
    return {first + place: float(value) for place, value in enumerate(values) if math.isfinite(value)}


def _stored(kept: _Kept) -> dict[str, Any]:
    """Return what is kept of a grid as plain numbers and lists."""
    hours = kept.history
    first = min(hours, default=0)
    span = range(first, max(hours, default=-1) + 1)
    issues = []
    for issue in kept.issues:
        begin, values = hourly(issue.seconds, issue.values, full=False)
        assert issue.issued_at is not None
        row = [round(value, DIGITS) for value in values[:HORIZON].tolist()]
        issues.append({"at": issue.issued_at.timestamp(), "first": begin, "values": row})
    history = [round(hours[hour], DIGITS) if hour in hours else None for hour in span]
    return {"first": first, "history": history, "issues": issues}


def _restored(key: str, stored: dict[str, Any]) -> _Kept:
    """Return what :func:`_stored` wrote; raises where it did not."""
    kind = key.rpartition(" ")[2]
    issues = [
        Forecast(
            [_time(int(row["first"]) + lead) for lead in range(len(row["values"]))],
            row["values"],
            kind=kind,
            issued_at=datetime.fromtimestamp(row["at"], timezone.utc),
        )
        for row in stored["issues"]
    ]
    history = [math.nan if value is None else float(value) for value in stored["history"]]
    return _Kept(issues, _known(int(stored["first"]), history))
