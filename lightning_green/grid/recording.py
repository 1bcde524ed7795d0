"""What a source says, kept over time in a file that :class:`FileSignal` and :class:`TraceSignal` read."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timedelta, timezone
from pathlib import Path

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.live.answer import Point, ordered
from lightning_green.grid.live.signal import LiveSignal
from lightning_green.grid.providers.file import parse_rows
from lightning_green.grid.signal import GridSignal
from lightning_green.utilities.files import atomic_file

_HORIZON = timedelta(hours=96)
_RANKS = {"estimated": 0, "static": 0, "measured": 1}


def points_of(signal: GridSignal, now: datetime) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Return what ``signal`` knows: values up to ``now``, and predictions from ``now`` on.

    Args:
        signal: Any signal; of a chain, the first source that knows the present.
        now: The time, aware.

    """
    if isinstance(signal, ChainSignal):
        signal = next((part for part in signal.signals if part.intensity(now) is not None), signal.signals[0])
    if isinstance(signal, LiveSignal):
        past, ahead = signal.known()
        return past, tuple(point for point in ahead if point.time > now - signal.step)
    reading, forecast = signal.intensity(now), signal.forecast(now, _HORIZON)
    now_known = () if reading is None else (Point(reading.measured_at, reading.value, reading.quality),)
    rows = [] if forecast is None else list(zip(forecast.times, forecast.values.tolist(), strict=True))
    return now_known, tuple(Point(time, value, "forecast") for time, value in rows if time > now)


def record(signal: GridSignal, path: Path, now: datetime, *, with_forecast: bool = True) -> int:
    """Write what ``signal`` knows to ``path``, together with what the file held before, and return the number of rows.

    The file is replaced whole, so a reader on another machine never sees a half of it. A value once measured is kept;
    an estimate gives way to it. The predictions are those of the newest forecast.

    Args:
        signal: Where the values come from.
        path: A ``.csv`` file.
        now: The time, aware.
        with_forecast: Write predictions too, as a job without internet wants them; not for a trace of the past.

    Raises:
        OSError: If the file cannot be read or written.
        ServiceError: If what is there is not such a file, or is about another zone or kind.

    """
    kept: tuple[Point, ...] = ()
    if path.exists() and path.stat().st_size:
        kept = parse_rows(path.read_bytes(), signal.zone, str(signal.kind), now).past
    past, ahead = points_of(signal, now)
    best: dict[datetime, Point] = {}
    for point in (*kept, *past):
        before = best.get(point.time)
        if before is None or _RANKS.get(point.quality, 0) >= _RANKS.get(before.quality, 0):
            best[point.time] = point
    rows = [point for point in ordered(best.values()) if point.time <= now]
    if with_forecast:
        rows += [point for point in ordered(ahead) if not rows or point.time > rows[-1].time]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, "w") as file:
        file.write(_to_csv(rows, signal))
    return len(rows)


def _to_csv(rows: list[Point], signal: GridSignal) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["datetime", "carbon_intensity", "quality", "zone", "kind"])
    for point in rows:
        quality = "estimated" if point.quality == "static" else point.quality
        time = point.time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        writer.writerow([time, f"{point.value:.6g}", quality, signal.zone or "", str(signal.kind)])
    return text.getvalue()
