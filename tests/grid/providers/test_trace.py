"""Recorded carbon intensities."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from lightning_green.grid.providers.trace import TraceSignal
from lightning_green.grid.spec import grid_from_spec

START = datetime(2026, 3, 28, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def write(path: Path, rows, header="datetime,carbon_intensity") -> str:
    path.write_text("\n".join([header, *(f"{time},{value}" for time, value in rows)]) + "\n")
    return str(path)


def hours(*values):
    return [((START + HOUR * i).strftime("%Y-%m-%dT%H:%M:%SZ"), value) for i, value in enumerate(values)]


def test_value_is_valid_from_its_time_to_the_next(tmp_path):
    signal = TraceSignal(write(tmp_path / "t.csv", hours(100, 200, 300)), zone="DE")
    reading = signal.intensity(START + HOUR * 1.5)
    assert (reading.value, reading.measured_at, reading.zone) == (200.0, START + HOUR, "DE")
    assert signal.intensity(START - HOUR) is None
    assert signal.intensity(START + HOUR * 3) is None
    assert signal.covers_until() == START + HOUR * 3
    assert signal.resolution() == HOUR


def test_past_is_history_and_future_is_forecast(tmp_path):
    signal = TraceSignal(write(tmp_path / "t.csv", hours(*range(100, 148))))
    forecast = signal.forecast(START + HOUR * 24.5, HOUR * 6)
    assert list(forecast.values) == [124.0, 125.0, 126.0, 127.0, 128.0, 129.0, 130.0]
    assert list(forecast.history_values) == list(map(float, range(100, 124)))
    short = signal.forecast(START + HOUR * 40, HOUR * 48)
    assert len(short.values) == 8  # to the end of the file


def test_mean_is_exact_over_quarter_hours(tmp_path):
    rows = [((START + timedelta(minutes=15 * i)).isoformat(), 100 * i) for i in range(8)]
    signal = TraceSignal(write(tmp_path / "t.csv", rows))
    assert signal.resolution() == timedelta(minutes=15)
    assert signal.mean(START, START + HOUR) == pytest.approx((0 + 100 + 200 + 300) / 4)
    assert signal.mean(START + timedelta(minutes=10), START + timedelta(minutes=20)) == pytest.approx(50.0)


def test_offsets_are_applied_across_the_change_to_summer_time(tmp_path):
    rows = [
        ("2026-03-29T00:00:00+01:00", 1),
        ("2026-03-29T01:00:00+01:00", 2),
        ("2026-03-29T03:00:00+02:00", 3),
        ("2026-03-29T04:00:00+02:00", 4),
    ]
    signal = TraceSignal(write(tmp_path / "t.csv", rows))
    assert signal.intensity(datetime(2026, 3, 29, 1, 30, tzinfo=timezone.utc)).value == 3.0


def test_column_can_be_selected(tmp_path):
    (tmp_path / "t.csv").write_text(
        "datetime,carbon_intensity,carbon_intensity_direct\n2026-01-01T00:00:00Z,300,250\n2026-01-01T01:00:00Z,310,260\n"
    )
    signal = TraceSignal(str(tmp_path / "t.csv"), column="carbon_intensity_direct", kind="average/direct")
    assert signal.intensity(datetime(2026, 1, 1, tzinfo=timezone.utc)).value == 250.0


def test_spec_round_trip_from_another_folder(tmp_path, monkeypatch):
    write(tmp_path / "t.csv", hours(100, 200))
    monkeypatch.chdir(tmp_path)
    spec = TraceSignal("t.csv", zone="DE", kind="average/direct").spec()
    monkeypatch.chdir("/")
    copy = grid_from_spec(spec)
    assert copy.intensity(START).value == 100.0
    assert (copy.zone, str(copy.kind)) == ("DE", "average/direct")


def test_parquet(tmp_path):
    pd = pytest.importorskip("pandas")
    times = pd.date_range(START, periods=4, freq="h")
    pd.DataFrame({"datetime": times, "carbon_intensity": [1.0, 2.0, 3.0, 4.0]}).to_parquet(tmp_path / "t.parquet")
    signal = TraceSignal(str(tmp_path / "t.parquet"))
    assert signal.mean(START, START + HOUR * 4) == 2.5
    pd.DataFrame({"datetime": times[::-1], "carbon_intensity": [1.0] * 4}).to_parquet(tmp_path / "u.parquet")
    with pytest.raises(ValueError, match=r"row 2: the time .* sort the rows"):
        TraceSignal(str(tmp_path / "u.parquet"))
    (tmp_path / "v.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        TraceSignal(str(tmp_path / "v.parquet"))


BAD = {
    "empty": ([], r"has no rows"),
    "unsorted": (
        [hours(1, 2)[1], hours(1, 2)[0]],
        r"line 3: the time .* earlier than the row before it; sort the rows",
    ),
    "duplicate": ([hours(1)[0], hours(1)[0]], r"line 3: the time .* occurs twice; keep one"),
    "gappy": (hours(1, 2, 3, 4)[:2] + hours(1, 2, 3, 4)[3:], r"line 4: there is no value from .*02:00.* fill the gap"),
    "two-hourly": (hours(1, 2, 3, 4, 5)[::2], r"line 3: there is no value from .* hourly or finer"),
    "negative": (hours(1, -2), r"line 3: the carbon intensity should be a number, 0 or more, got '-2'"),
    "nan": (hours(1, "nan"), r"line 3: the carbon intensity should be a number"),
    "blank": (hours(1, ""), r"line 3: the carbon intensity should be a number"),
    "naive": ([("2026-01-01T00:00:00", 1)], r"line 2: the time .* no time zone; write it in UTC with a trailing Z"),
    "no time": ([("yesterday", 1)], r"line 2: `datetime` should be like 2026-01-31T12:00:00Z, got 'yesterday'"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_file_is_refused_in_one_line(tmp_path, case):
    rows, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        TraceSignal(write(tmp_path / "bad.csv", rows))
    text = str(caught.value)
    assert "bad.csv" in text
    assert "\n" not in text


def test_missing_file_or_column_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` should be a \.csv or \.parquet file"):
        TraceSignal(str(tmp_path / "none.csv"))
    with pytest.raises(ValueError, match="has no column `carbon_intensity`; it has datetime, co2"):
        TraceSignal(write(tmp_path / "t.csv", [], header="datetime,co2"))
    (tmp_path / "b.csv").write_bytes(b"datetime,carbon_intensity\n\xff\xfe\x00,1\n")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        TraceSignal(str(tmp_path / "b.csv"))


def test_mean_equals_a_fine_sum(tmp_path):
    values = np.random.default_rng(0).uniform(50, 600, 48).round(2)
    signal = TraceSignal(write(tmp_path / "t.csv", hours(*values)))
    begin, end = START + timedelta(hours=3.7), START + timedelta(hours=40.2)
    seconds = np.arange(begin.timestamp() + 0.5, end.timestamp())
    brute = values[((seconds - START.timestamp()) // 3600).astype(int)].mean()
    assert signal.mean(begin, end) == pytest.approx(brute, rel=1e-9)
