"""A recorded series of carbon intensities in a file."""

from __future__ import annotations

import csv
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from typing_extensions import override

from lightning_green.grid.series import Series
from lightning_green.grid.signal import GridSignal, Reading, SignalKind
from lightning_green.planning.forecast import Forecast

_HOUR = timedelta(hours=1)


class TraceSignal(GridSignal):
    """Carbon intensity from a CSV or Parquet file with the columns ``datetime`` and ``carbon_intensity``.

    A time is the start of its interval: ISO 8601 with ``Z`` or an offset, hourly or finer. Rows before the present are
    the history, rows after it the forecast. After the last row, all values are unknown.

    Args:
        path: A ``.csv`` or ``.parquet`` file; Parquet needs the extra ``parquet``.
        zone: Grid zone of the values, or None.
        kind: Definition of the values, for example ``"average/lifecycle"``.
        column: Name of the column; None for ``carbon_intensity``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is empty, unsorted, has duplicate or naive times, gaps, or a value that is negative or
            not a number. The message names the file, the line and the fix.

    Examples:
        ```python
        CarbonScheduler(grid=TraceSignal("de.csv", zone="DE"), deadline="36h")
        ```

    """

    def __init__(
        self, path: str, zone: str | None = None, kind: str = "average/lifecycle", column: str | None = None
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        self.zone = zone
        self.kind = SignalKind.parse(kind)
        self.column = column
        self.source = f"trace {self.path.name}"
        if not self.path.is_file():
            raise FileNotFoundError(f"`path` should be a .csv or .parquet file that exists, got {path!r}.")
        name = column or "carbon_intensity"
        rows = _parquet_rows if self.path.suffix == ".parquet" else _csv_rows
        points = check_points(self.path, rows(self.path, name))
        self.series = Series(points)

    @override
    def intensity(self, at: datetime) -> Reading | None:
        found = self.series.at(at)
        if found is None:
            return None
        return Reading(found[1], self.kind, self.source, self.zone, measured_at=found[0], issued_at=found[0])

    @override
    def forecast(self, now: datetime, horizon: timedelta) -> Forecast | None:
        return self.series.forecast(now, horizon, str(self.kind), issued_at=now)

    @override
    def mean(self, start: datetime, end: datetime) -> float | None:
        return self.series.mean(start, end)

    @override
    def resolution(self) -> timedelta:
        return self.series.step()

    @override
    def covers_until(self) -> datetime | None:
        return self.series.covers_until()

    @override
    def spec(self) -> dict[str, Any] | None:
        return self._spec(path=str(self.path), zone=self.zone, kind=str(self.kind), column=self.column)


def check_points(path: Path, rows: Iterator[tuple[str, Any, Any]]) -> list[tuple[datetime, float]]:
    """Return the points of a trace.

    Args:
        path: The file, for the message.
        rows: ``(where, time, value)`` of each row; ``where`` is text such as "line 3".

    Raises:
        ValueError: If a row is invalid.

    """
    points: list[tuple[datetime, float]] = []
    places: list[str] = []
    for where, raw_time, raw_value in rows:
        time, value = _time(path, where, raw_time), _value(path, where, raw_value)
        if points and time == points[-1][0]:
            raise ValueError(f"{path}, {where}: the time {raw_time} occurs twice; keep one row for each time.")
        if points and time < points[-1][0]:
            raise ValueError(f"{path}, {where}: the time {raw_time} is earlier than the row before it; sort the rows.")
        points.append((time, value))
        places.append(where)
    if not points:
        raise ValueError(f"{path} has no rows; it should contain at least one `datetime,carbon_intensity`.")
    steps = [after[0] - before[0] for before, after in itertools.pairwise(points)]
    usual = Counter(steps).most_common(1)[0][0] if steps else _HOUR
    limit = min(usual * 1.5, _HOUR)
    for position, step in enumerate(steps):
        if step > limit:
            raise ValueError(
                f"{path}, {places[position + 1]}: there is no value from {points[position][0] + min(usual, _HOUR)} to "
                f"{points[position + 1][0]}; fill the gap (values every {min(usual, _HOUR)}, hourly or finer)."
            )
    return points


def _csv_rows(path: Path, column: str) -> Iterator[tuple[str, Any, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            _check_columns(path, list(reader.fieldnames or ()), column)
            for row in reader:
                yield f"line {reader.line_num}", row["datetime"], row[column]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, after line {reader.line_num}: not a CSV file in UTF-8 ({error}).") from error


def _parquet_rows(path: Path, column: str) -> Iterator[tuple[str, Any, Any]]:
    try:
        import pandas as pd
        import pyarrow
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Reading {path} needs pandas and pyarrow: pip install 'lightning-green[parquet]'."
        ) from error
    try:
        frame = pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file ({error}).") from error
    if "datetime" not in frame.columns and frame.index.name == "datetime":
        frame = frame.reset_index()
    _check_columns(path, [str(name) for name in frame.columns], column)
    for position, (time, value) in enumerate(zip(frame["datetime"], frame[column], strict=True), start=1):
        yield f"row {position}", time.to_pydatetime(warn=False) if hasattr(time, "to_pydatetime") else time, value


def _check_columns(path: Path, names: list[str], column: str) -> None:
    for name in ("datetime", column):
        if name not in names:
            raise ValueError(f"{path} has no column `{name}`; it has {', '.join(names) or 'none'}.")


def _time(path: Path, where: str, raw: Any) -> datetime:
    time = raw
    if not isinstance(raw, datetime):
        text = str(raw or "").strip()
        try:
            # Python 3.10 does not parse a trailing Z
            time = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
        except ValueError:
            raise ValueError(
                f"{path}, {where}: `datetime` should be like 2026-01-31T12:00:00Z, got {text!r}."
            ) from None
    if time != time:  # pandas' NaT
        raise ValueError(f"{path}, {where}: `datetime` should be like 2026-01-31T12:00:00Z, got nothing.")
    if time.tzinfo is None:
        raise ValueError(f"{path}, {where}: the time {raw} has no time zone; write it in UTC with a trailing Z.")
    return time.astimezone(timezone.utc)  # type: ignore[no-any-return]


def _value(path: Path, where: str, raw: Any) -> float:
    try:
        value = float(raw)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{path}, {where}: the carbon intensity should be a number, 0 or more, got {raw!r}.")
    return value
