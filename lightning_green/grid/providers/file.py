"""A file that another machine keeps up to date, for compute nodes without internet access."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from typing_extensions import override

from lightning_green.grid.errors import WrongZoneError
from lightning_green.grid.live import (
    MAX_AGE,
    Answer,
    Failure,
    FetchResult,
    Point,
    PolledSignal,
    parse_time,
    parse_value,
    require_points,
    sort_points,
    truncate_text,
)
from lightning_green.grid.providers.electricity_maps_export import ExportColumns
from lightning_green.grid.series import utc
from lightning_green.grid.signal import Quality, SignalKind
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.http.errors import ServiceError, UnreachableError, UnreadableError

_MOST_BYTES = 20_000_000
_QUALITIES = ("measured", "estimated", "forecast")


class FileSignal(PolledSignal):
    """Carbon intensity from a CSV file that a machine with internet access keeps up to date.

    ``lightning-green grid record --zone DE --out /shared/de.csv --every 15m`` on a login node writes it. A job without
    internet access reads it after each change. Columns: ``datetime`` (start of the interval, UTC), ``carbon_intensity``
    and optionally ``quality`` (``measured``, ``estimated`` or ``forecast``), ``zone`` and ``kind``. The time of the
    last change is the time of issue of its forecast. A file that is missing, incomplete or old is handled like a
    service that does not answer. A CSV export of Electricity Maps can be used as well; ``kind`` selects its column.

    Args:
        path: The file; it may be created later.
        zone: Grid zone of the values; compared with the column ``zone`` if there is one.
        kind: Definition of the values; compared with the column ``kind`` if there is one.
        resolution: Interval that one value is valid for.
        every: Interval at which the file is checked for changes.
        max_age: Values older than this are not used for the present.

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        ```python
        CarbonScheduler(grid=FileSignal("/shared/de.csv", zone="DE"), deadline="36h")
        ```

    """

    def __init__(
        self,
        path: str,
        zone: str | None = None,
        kind: str = "average/lifecycle",
        resolution: str | timedelta = "1h",
        every: str | timedelta = "1m",
        max_age: str = MAX_AGE,
    ) -> None:
        step, self.every = parse_duration(resolution, "resolution"), parse_duration(every, "every")
        if step < timedelta(minutes=1):
            raise ValueError(f"`resolution` should be a minute or more, got {resolution!r}.")
        if self.every < timedelta(seconds=1):
            raise ValueError(f"`every` should be a second or more, got {every!r}.")
        self.path = Path(path).expanduser().absolute()
        arguments = {
            "path": str(self.path),
            "zone": zone,
            "kind": kind,
            "resolution": f"{step.total_seconds():g}s",
            "every": f"{self.every.total_seconds():g}s",
            "max_age": max_age,
        }
        super().__init__(f"file {self.path.name}", zone, SignalKind.parse(kind), step, arguments, max_age)
        self._version: tuple[int, int] | None = None

    @override
    def load_cache(self, now: datetime) -> bool:
        self.refresh(now)
        return super().load_cache(now)

    @override
    def fetch(self, now: datetime, *, force: bool = False) -> FetchResult:
        try:
            answers = self._read(force)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "unknown reason"
            return FetchResult(failures=(Failure("file", UnreachableError(f"{self.path} cannot be read ({reason})")),))
        except ServiceError as error:
            return FetchResult(failures=(Failure("file", error),))
        return FetchResult(answers)

    @override
    def seconds_to_next_fetch(self, now: datetime) -> float:
        return self.every.total_seconds()

    def _read(self, force: bool) -> tuple[tuple[Answer, datetime], ...]:
        """Return the content of the file if it has changed."""
        status = self.path.stat()
        version = (status.st_mtime_ns, status.st_size)
        if version == self._version and not force:
            return ()
        if status.st_size > _MOST_BYTES:
            raise UnreadableError(f"{self.path} is larger than {_MOST_BYTES / 1e6:g} MB")
        written_at = utc(status.st_mtime)
        answer = parse_rows(self.path.read_bytes(), self.zone, str(self.kind), written_at)
        self._version = version
        return ((answer, written_at),)


def parse_rows(data: bytes, zone: str | None, kind: str, written_at: datetime) -> Answer:
    """Parse the content of a file.

    Args:
        data: The bytes; an incomplete last line is dropped.
        zone: Expected zone, or None.
        kind: Expected kind.
        written_at: Time of the last change of the file.

    Raises:
        ServiceError: If the file is unusable, or about another zone or kind.

    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError("the file is not text in UTF-8") from None
    complete_lines = text if text.endswith("\n") else text[: text.rfind("\n") + 1]
    past: list[Point] = []
    ahead: list[Point] = []
    try:
        reader = csv.DictReader(io.StringIO(complete_lines))
        for row in _rows(reader, kind):
            if zone is not None and row.get("zone") and str(row["zone"]).casefold() != zone.casefold():
                raise WrongZoneError(f"the file is about zone {truncate_text(row['zone'])}, expected {zone}")
            if row.get("kind") and row["kind"] != kind:
                raise WrongZoneError(f"the values of the file are {truncate_text(row['kind'])}, expected {kind}")
            time, value = parse_time(row["datetime"]), parse_value(_number(row["carbon_intensity"]))
            quality = row.get("quality") or "measured"
            if time is None or value is None or quality not in _QUALITIES:
                continue
            point = Point(time, value, cast("Quality", quality))
            (ahead if quality == "forecast" else past).append(point)
    except csv.Error:
        raise UnreadableError("the file is not a CSV file") from None
    return require_points(Answer(past=sort_points(past), forecast=sort_points(ahead), issued_at=written_at))


def _rows(reader: csv.DictReader[str], kind: str) -> Iterator[Mapping[str, str | None]]:
    """Yield the rows, those of an export of Electricity Maps with the usual names of the columns."""
    names = reader.fieldnames or []
    if "datetime" in names and "carbon_intensity" in names:
        yield from reader
        return
    export = ExportColumns.find(names)
    if export is None:
        raise UnreadableError("the file has no columns `datetime` and `carbon_intensity`")
    if kind not in export.values:
        raise WrongZoneError(f"the values of the file are {' and '.join(export.values)}, expected {kind}")
    for row in reader:
        yield export.convert(row, export.values[kind])


def _number(raw: str | None) -> float | None:
    try:
        return float(raw) if raw else None
    except ValueError:
        return None
