"""A file that another machine refreshes, for compute nodes without internet."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from typing_extensions import override

from lightning_green.grid.errors import WrongZoneError
from lightning_green.grid.live.answer import Answer, Point, Query, ordered, read_time, read_value, shown, whole
from lightning_green.grid.live.signal import MAX_AGE, LiveSignal
from lightning_green.grid.series import utc
from lightning_green.grid.signal import Quality, SignalKind
from lightning_green.utilities.durations import parse_duration
from lightning_green.utilities.http.errors import ServiceError, UnreachableError, UnreadableError

_LARGEST = 20_000_000
_QUALITIES = ("measured", "estimated", "forecast")


class FileSignal(LiveSignal):
    """Carbon intensity from a CSV file that is written anew by somebody who can reach a service.

    ``lightning-green grid record --zone DE --out /shared/de.csv --every 15m`` on a login node writes it; a job without
    internet reads it whenever it changed. Columns: ``datetime`` (start of the interval, UTC), ``carbon_intensity``, and
    optionally ``quality`` (``measured``, ``estimated`` or ``forecast``), ``zone`` and ``kind``. Its forecast is as old
    as the file. A file that is missing, torn or old degrades like a service that does not answer.

    Args:
        path: The file; it may come into being later.
        zone: Grid zone of the values; compared with the column ``zone`` where there is one.
        kind: What the numbers mean; compared with the column ``kind`` where there is one.
        resolution: How long one value holds.
        every: How often to look whether it changed.
        max_age: Values older than this are not taken for "now".

    Raises:
        ValueError: If an argument cannot be read.

    Example::

        CarbonScheduler(grid=FileSignal("/shared/de.csv", zone="DE"), deadline="36h")

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
        self._seen: tuple[int, int] | None = None

    @override
    def queries(self, now: datetime) -> Sequence[Query]:
        return ()

    @override
    def recall(self, now: datetime) -> None:
        self.refresh(now)

    @override
    def refresh(self, now: datetime | None = None, *, force: bool = False) -> list[str]:
        now = now or self._clock()
        failures: dict[str, tuple[bool, ServiceError]] = {}
        with self._refreshing:
            try:
                status = self.path.stat()
                if force or self._seen != (status.st_mtime_ns, status.st_size):
                    if status.st_size > _LARGEST:
                        raise UnreadableError(f"{self.path} is larger than {_LARGEST / 1e6:g} MB")
                    answer = parse_rows(self.path.read_bytes(), self.zone, str(self.kind), utc(status.st_mtime))
                    self._snapshot = self._snapshot.merged([(answer, utc(status.st_mtime))], now)
                    self._seen = (status.st_mtime_ns, status.st_size)
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else "unknown reason"
                failures["file"] = (False, UnreachableError(f"{self.path} cannot be read ({reason})"))
            except ServiceError as error:
                failures["file"] = (False, error)
            self._report(failures, now)
        return [str(error) for _, error in failures.values()]

    @override
    def _seconds_to_next(self, now: datetime) -> float:
        return self.every.total_seconds()


def parse_rows(data: bytes, zone: str | None, kind: str, written_at: datetime) -> Answer:
    """Read the content of a file.

    Args:
        data: The bytes; a torn last line is dropped.
        zone: The zone that is wanted, or None.
        kind: The kind that is wanted.
        written_at: When the file was written.

    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError("the file is not text in UTF-8") from None
    whole_lines = text if text.endswith("\n") else text[: text.rfind("\n") + 1]
    past: list[Point] = []
    ahead: list[Point] = []
    try:
        reader = csv.DictReader(io.StringIO(whole_lines))
        names = reader.fieldnames or []
        if "datetime" not in names or "carbon_intensity" not in names:
            raise UnreadableError("the file has no columns `datetime` and `carbon_intensity`")
        for row in reader:
            if zone is not None and row.get("zone") and str(row["zone"]).casefold() != zone.casefold():
                raise WrongZoneError(f"the file is about zone {shown(row['zone'])}, {zone} was asked for")
            if row.get("kind") and row["kind"] != kind:
                raise WrongZoneError(f"the file's values are {shown(row['kind'])}, {kind} was asked for")
            time, value = read_time(row["datetime"]), read_value(_number(row["carbon_intensity"]))
            quality = row.get("quality") or "measured"
            if time is None or value is None or quality not in _QUALITIES:
                continue
            point = Point(time, value, cast("Quality", quality))
            (ahead if quality == "forecast" else past).append(point)
    except csv.Error:
        raise UnreadableError("the file is not a CSV file") from None
    return whole(Answer(past=ordered(past), forecast=ordered(ahead), issued_at=written_at))


def _number(raw: str | None) -> float | None:
    try:
        return float(raw) if raw else None
    except ValueError:
        return None
