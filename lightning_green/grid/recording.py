"""The values of a source, collected over time in a file for ``FileSignal`` and ``TraceSignal``."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timedelta, timezone
from pathlib import Path

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.errors import NoDataError
from lightning_green.grid.live import Point, PolledSignal, sort_points
from lightning_green.grid.providers.file import parse_rows
from lightning_green.grid.signal import GridSignal
from lightning_green.utilities.files import atomic_file

_HORIZON = timedelta(hours=96)
_RANKS = {"estimated": 0, "measured": 1}


def points_of(signal: GridSignal, now: datetime) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Return the values of ``signal`` up to ``now`` and its predictions from ``now`` on.

    Args:
        signal: Any signal. Of a chain, the first source with a present value is used. Static values, such as an annual
            mean or an assumed day, are no data and are not returned.
        now: The time, aware.

    """
    source = data_source(signal, now)
    if source is None:
        return (), ()
    if isinstance(source, PolledSignal):
        snapshot = source.snapshot
        return snapshot.past, tuple(point for point in snapshot.predictions if point.time > now - source.step)
    reading, forecast = source.intensity(now), source.forecast(now, _HORIZON)
    present = () if reading is None else (Point(reading.measured_at, reading.value, reading.quality),)
    rows = [] if forecast is None else list(zip(forecast.times, forecast.values.tolist(), strict=True))
    return present, tuple(Point(time, value, "forecast") for time, value in rows if time > now)


def data_source(signal: GridSignal, now: datetime) -> GridSignal | None:
    """Return the signal, or the first part of a chain, that has data: not a static one, and not without a value.

    Args:
        signal: Any signal.
        now: The time, aware.

    """
    parts = signal.signals if isinstance(signal, ChainSignal) else [signal]
    live = [part for part in parts if not part.is_static]
    return next((part for part in live if part.intensity(now) is not None), live[0] if live else None)


def record(signal: GridSignal, path: Path, now: datetime, *, with_forecast: bool = True) -> int:
    """Merge the values of ``signal`` into a file and return the number of rows; write nothing if it has no value.

    The file is replaced atomically, so a reader on another machine never sees a part of it. A measured value is kept
    and replaces an estimate. The predictions are those of the newest forecast.

    Args:
        signal: Source of the values.
        path: A ``.csv`` file.
        now: The time, aware.
        with_forecast: Whether to write predictions, for a job without internet access. A trace contains none.

    Raises:
        OSError: If the file cannot be read or written.
        ServiceError: If the existing file has another form, or is about another zone or kind.

    """
    past, predictions = points_of(signal, now)
    if not past and not predictions:
        return 0
    best: dict[datetime, Point] = {}
    for point in (*_read(path, signal, now), *past):
        before = best.get(point.time)
        if before is None or _RANKS.get(point.quality, 0) >= _RANKS.get(before.quality, 0):
            best[point.time] = point
    rows = [point for point in sort_points(best.values()) if point.time <= now]
    if with_forecast:
        rows += [point for point in sort_points(predictions) if not rows or point.time > rows[-1].time]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, "w") as file:
        file.write(_to_csv(rows, signal))
    return len(rows)


def _read(path: Path, signal: GridSignal, now: datetime) -> tuple[Point, ...]:
    """Return the values that are in the file already; none if it does not exist or contains only the header."""
    data = path.read_bytes() if path.exists() else b""
    if not data:
        return ()
    try:
        return parse_rows(data, signal.zone, str(signal.kind), now).past
    except NoDataError:
        if len(data.splitlines()) > 1:  # rows of another form, which may be of use to the user
            raise
        return ()


def _to_csv(rows: list[Point], signal: GridSignal) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["datetime", "carbon_intensity", "quality", "zone", "kind"])
    for point in rows:
        time = point.time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        writer.writerow([time, f"{point.value:.6g}", point.quality, signal.zone or "", str(signal.kind)])
    return text.getvalue()
