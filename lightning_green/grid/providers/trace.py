"""A recorded series of carbon intensities in a file."""

from __future__ import annotations

import csv
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import override

from lightning_green.grid.providers.electricity_maps_export import ExportColumns
from lightning_green.grid.series import Series, utc
from lightning_green.grid.signal import GridSignal, Quality, Reading, SignalKind
from lightning_green.planning.forecast import Forecast

_HOUR = timedelta(hours=1)


class TraceSignal(GridSignal):
    """Carbon intensity from a CSV or Parquet file with the columns ``datetime`` and ``carbon_intensity``.

    A time is the start of its interval: ISO 8601 with ``Z`` or an offset, hourly or finer. Rows before the present are
    the history, rows after it the forecast. After the last row, all values are unknown.

    An hourly or finer CSV export of Electricity Maps is read as it is: ``kind`` selects the column, the zone is that of
    the file, and estimates of Electricity Maps have the quality ``"estimated"``.

    Args:
        path: A ``.csv`` or ``.parquet`` file; Parquet needs the extra ``parquet``.
        zone: Grid zone of the values, or None. Compared with the zone of an export.
        kind: Definition of the values, for example ``"average/lifecycle"``.
        column: Name of the column; None for ``carbon_intensity``, or for the column of ``kind`` in an export.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is empty, unsorted, has duplicate or naive times, gaps, or a value that is negative or
            not a number, or if an export is about another zone or has no values of ``kind``. The message names the
            file, the line and the fix.

    Examples:
        ```python
        CarbonScheduler(grid=TraceSignal("de.csv", zone="DE"), deadline="36h")
        TraceSignal("DE_2024_hourly.csv", kind="average/direct")  # an export of Electricity Maps
        ```

    """

    def __init__(
        self, path: str, zone: str | None = None, kind: str = "average/lifecycle", column: str | None = None
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        self.kind = SignalKind.parse(kind)
        self.column = column
        self.source = f"trace {self.path.name}"
        if not self.path.is_file():
            raise FileNotFoundError(f"`path` should be a .csv or .parquet file that exists, got {path!r}.")
        if self.path.suffix == ".parquet":
            rows = list(_parquet_rows(self.path, column or "carbon_intensity"))
        else:
            rows = list(csv_rows(self.path, column, str(self.kind)))
        self.zone = _check_zone(self.path, rows, zone)
        self.series = Series(check_points(self.path, rows))
        self._qualities: list[Quality] = [row.quality for row in rows]

    @override
    def intensity(self, at: datetime) -> Reading | None:
        position = self.series.index(at.timestamp())
        if position is None:
            return None
        value, start = float(self.series.values[position]), utc(self.series.starts[position])
        return Reading(value, self.kind, self.source, self.zone, start, start, self._qualities[position])

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


class Row(NamedTuple):
    """One row of a file, as it is read.

    Args:
        where: Place in the file for messages, such as "line 3".
        time: Start of the interval.
        value: Carbon intensity in gCO2e/kWh.
        quality: Quality of the value.
        zone: Zone that the row names, or None.

    """

    where: str
    time: Any
    value: Any
    quality: Quality = "measured"
    zone: str | None = None


def check_points(path: Path, rows: Iterable[Row]) -> list[tuple[datetime, float]]:
    """Return the points of a trace.

    Args:
        path: The file, for the message.
        rows: The rows.

    Raises:
        ValueError: If a row is invalid.

    """
    points: list[tuple[datetime, float]] = []
    places: list[str] = []
    for where, raw_time, raw_value, *_ in rows:
        time, value = parse_row_time(path, where, raw_time), _value(path, where, raw_value)
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


def _check_zone(path: Path, rows: Sequence[Row], zone: str | None) -> str | None:
    """Return the zone of the values."""
    for row in rows:
        if row.zone:
            zone = zone or row.zone
            if row.zone.casefold() != zone.casefold():
                raise ValueError(
                    f"{path}, {row.where}: the value is about the zone {row.zone}, expected {zone}; "
                    "keep the rows of one zone and pass it as `zone`."
                )
    return zone


def csv_rows(path: Path, column: str | None, kind: str) -> Iterator[Row]:
    """Yield the rows of a CSV file; the arguments are those of ``TraceSignal``."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            names = list(reader.fieldnames or ())
            export = None if "datetime" in names else ExportColumns.find(names)
            if export is not None:
                if column is None and kind not in export.values:
                    raise ValueError(f"{path} has the kinds {' and '.join(export.values)}; got `kind` {kind!r}.")
                name = column or export.values[kind]
                _check_columns(path, names, export.time, name)
                for row in reader:
                    new = export.convert(row, name)
                    quality: Quality = "estimated" if new["quality"] == "estimated" else "measured"
                    place = f"line {reader.line_num}"
                    yield Row(place, new["datetime"], new["carbon_intensity"], quality, new["zone"])
                return
            column = column or "carbon_intensity"
            _check_columns(path, names, "datetime", column)
            for row in reader:
                yield Row(f"line {reader.line_num}", row["datetime"], row[column])
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, after line {reader.line_num}: not a CSV file in UTF-8 ({error}).") from error


def _parquet_rows(path: Path, column: str) -> Iterator[Row]:
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
    _check_columns(path, [str(name) for name in frame.columns], "datetime", column)
    for position, (time, value) in enumerate(zip(frame["datetime"], frame[column], strict=True), start=1):
        start = time.to_pydatetime(warn=False) if hasattr(time, "to_pydatetime") else time
        yield Row(f"row {position}", start, value)


def _check_columns(path: Path, names: list[str], *columns: str) -> None:
    for name in columns:
        if name not in names:
            raise ValueError(f"{path} has no column `{name}`; it has {', '.join(names) or 'none'}.")


def parse_row_time(path: Path, where: str, raw: Any) -> datetime:
    """Return the time of a row in UTC; ``where`` is its place, for the message."""
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


def ascending_rows(path: Path, column: str) -> Iterator[tuple[str, datetime, Any]]:
    """Yield the rows of a CSV file of values over time as (place in the file, time, value as it was read).

    Args:
        path: The file, with the columns ``datetime`` and ``column``.
        column: Name of the values.

    Raises:
        ValueError: If a time cannot be read, occurs twice or is earlier than the one before it.

    """
    last: datetime | None = None
    for where, raw_time, raw_value, *_ in csv_rows(path, column, ""):
        time = parse_row_time(path, where, raw_time)
        if last is not None and time <= last:
            problem = "occurs twice" if time == last else "is earlier than the row before it"
            raise ValueError(f"{path}, {where}: the time {raw_time} {problem}; sort the rows, one for each time.")
        last = time
        yield where, time, raw_value


def _value(path: Path, where: str, raw: Any) -> float:
    try:
        value = float(raw)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{path}, {where}: the carbon intensity should be a number, 0 or more, got {raw!r}.")
    return value
