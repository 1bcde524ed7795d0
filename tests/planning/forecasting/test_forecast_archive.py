"""The forecast archive survives restarts, stays small and is written atomically."""

import json
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from lightning_green.planning import Forecast, ForecastArchive
from lightning_green.planning.forecasting import correct
from lightning_green.planning.forecasting.forecast_archive import HISTORY_HOURS, MAX_GRIDS
from tests.helpers.zone_archives import available, issuance, make_archive, rms_error, to_time

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
KIND = "average/lifecycle"


def make_forecast(hour=0, value=300.0, count=48, minutes=60, **kwargs):
    begin = START + timedelta(hours=hour)
    times = [begin + timedelta(minutes=minutes * index) for index in range(count * 60 // minutes)]
    return Forecast(times, np.linspace(value, value + 50, len(times)), **{"issued_at": begin, **kwargs})


@pytest.mark.parametrize("minutes", [60, 30])
def test_new_process_makes_the_same_correction(tmp_path, minutes):
    zone, file = make_archive(days=30, bias=120.0), tmp_path / "forecasts.json"
    together, now = ForecastArchive(), None
    for day in range(10, 20):
        newest, _, now = available(zone, day)
        if minutes == 30:
            times = [time + timedelta(minutes=half) for time in newest.times for half in (0, 30)]
            newest = replace(newest, times=times, values=np.repeat(newest.values, 2) + np.tile([4.0, -4.0], 96))
        together.add("ZZ", newest)
        ForecastArchive(file).add("ZZ", newest)  # one process per issuance
    newest, _, now = available(zone, 20)
    restarted = ForecastArchive(file)
    assert restarted.problem is None
    assert [one.issued_at for one in restarted.issuances("ZZ", KIND)] == [
        one.issued_at for one in together.issuances("ZZ", KIND)
    ]
    corrected = correct(restarted.extend_history("ZZ", newest), restarted.issuances("ZZ", KIND), now)
    expected = correct(together.extend_history("ZZ", newest), together.issuances("ZZ", KIND), now)
    assert corrected.values == pytest.approx(expected.values, abs=0.01)
    assert rms_error(corrected, zone, now) < 0.7 * rms_error(newest, zone, now)


def test_history_is_extended_beyond_that_of_the_forecast(tmp_path):
    zone, archive = make_archive(days=40), ForecastArchive(tmp_path / "forecasts.json")
    for day in range(3, 30, 3):
        archive.add("ZZ", available(zone, day, days=3)[0])
    newest, _, now = available(zone, 30, days=3)
    longer = ForecastArchive(tmp_path / "forecasts.json").extend_history("ZZ", newest)
    assert longer.history_times == tuple(sorted(set(longer.history_times)))
    assert longer.history_times[0] == to_time(zone.first + 9)
    assert longer.history_times[-1] == newest.history_times[-1] == now - timedelta(hours=1)
    actual = [zone.actual[int(time.timestamp() // 3600) - zone.first] for time in longer.history_times]
    assert longer.history_values == pytest.approx(np.array(actual), abs=0.001)
    assert longer.values.tolist() == newest.values.tolist()


def test_unknown_hours_stay_unknown(tmp_path):
    first = make_forecast(
        history_times=[START - timedelta(hours=9), START - timedelta(hours=3)], history_values=[100.0, 200.0]
    )
    ForecastArchive(tmp_path / "f.json").add("ZZ", first)
    later = ForecastArchive(tmp_path / "f.json").extend_history("ZZ", make_forecast(6))
    assert dict(zip(later.history_times, later.history_values, strict=True)) == {
        START - timedelta(hours=9): 100.0,
        START - timedelta(hours=3): 200.0,
    }


def test_grids_and_kinds_are_separate(tmp_path):
    archive = ForecastArchive(tmp_path / "f.json")
    history = {"history_times": [START - timedelta(hours=1)], "history_values": [77.0]}
    archive.add("DE", make_forecast(0, **history))
    archive.add("DE", make_forecast(1, kind="marginal/direct"))
    archive.add("US CAL", make_forecast(2))
    again = ForecastArchive(tmp_path / "f.json")
    for kept in (archive, again):
        assert [one.issued_at.hour for one in kept.issuances("DE", KIND)] == [0]
        assert [one.issued_at.hour for one in kept.issuances("DE", "marginal/direct")] == [1]
        assert [one.issued_at.hour for one in kept.issuances("US CAL", KIND)] == [2]
        assert kept.issuances("PL", KIND) == []
        assert kept.extend_history("PL", make_forecast(3)).history_times == ()
        assert kept.extend_history("DE", make_forecast(3, kind="marginal/direct")).history_times == ()
        assert kept.extend_history("DE", make_forecast(3)).history_values.tolist() == [77.0]


def test_file_size_is_bounded(tmp_path):
    """A month of hourly issuances from five grids, some of ten days in steps of 15 minutes."""
    archive = ForecastArchive()
    for hour in range(24 * 30):
        past = START + timedelta(hours=hour - 1)
        archive.add("ZZ", make_forecast(hour, count=100, history_times=[past], history_values=[123.456789]))
    for number in range(5):
        archive.add(f"Z{number}", make_forecast(24 * 30, count=240, minutes=15))
    archive.add("ZZ", make_forecast(24 * 30, count=240, minutes=15))
    archive.path = tmp_path / "forecasts.json"
    archive.add("ZZ", make_forecast(24 * 30 + 1, count=240, minutes=15))
    assert archive.path.stat().st_size < 700_000
    again = ForecastArchive(archive.path)
    assert len(json.loads(archive.path.read_text())["grids"]) == MAX_GRIDS
    assert again.issuances("Z0", KIND) == again.issuances("Z1", KIND) == []
    assert len(again.issuances("Z4", KIND)) == 1
    assert len(again.issuances("Z4", KIND)[0].times) == 96


def test_old_issuances_and_history_are_dropped(tmp_path):
    archive = ForecastArchive(tmp_path / "f.json")
    for day in range(0, 100, 2):
        past = [START + timedelta(hours=24 * day - back) for back in range(48, 0, -1)]
        archive.add("ZZ", make_forecast(24 * day, history_times=past, history_values=[5.0] * 48))
    again = ForecastArchive(tmp_path / "f.json")
    assert again.issuances("ZZ", KIND)[0].issued_at == START + timedelta(days=98 - 28)
    assert len(again.issuances("ZZ", KIND)) == 15
    assert len(again.extend_history("ZZ", make_forecast(24 * 98)).history_times) == HISTORY_HOURS


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"version": 9, "grids": {}}', '{"version": 1, "grids": {"ZZ average/lifecycle": {}}}',
     '{"version": 1, "grids": {"ZZ nonsense": {"first": 0, "history": [], "issues": [{"at": 0, "first": 0, '
     '"values": [1.0]}]}}}', "\x00\x00\x00"],
)  # fmt: skip
def test_unreadable_file_is_reported_and_replaced(tmp_path, content):
    file = tmp_path / "forecasts.json"
    file.write_text(content)
    archive = ForecastArchive(file)
    assert "cannot be read" in archive.problem
    assert str(file) in archive.problem
    assert archive.issuances("ZZ", KIND) == []
    archive.add("ZZ", make_forecast())
    assert ForecastArchive(file).problem is None
    assert len(ForecastArchive(file).issuances("ZZ", KIND)) == 1


def test_missing_directory_is_reported_and_archive_stays_in_memory(tmp_path):
    archive = ForecastArchive(tmp_path / "gone" / "forecasts.json")
    assert archive.problem is None
    archive.add("ZZ", make_forecast())
    archive.add("ZZ", make_forecast(1))
    assert "cannot be written" in archive.problem
    assert len(archive.issuances("ZZ", KIND)) == 2


def test_file_is_written_only_for_new_content(tmp_path):
    file = tmp_path / "forecasts.json"
    archive = ForecastArchive(file)
    archive.add("ZZ", None)
    archive.add("ZZ", Forecast([], []))
    assert not file.exists()
    archive.add("ZZ", make_forecast())
    written = file.stat().st_ino
    archive.add("ZZ", make_forecast())
    assert file.stat().st_ino == written
    archive.add("ZZ", make_forecast(1))
    assert file.stat().st_ino != written


def test_file_is_replaced_atomically(tmp_path):
    file, seen, problems = tmp_path / "forecasts.json", set(), []
    writer = ForecastArchive(file)
    writer.add("ZZ", make_forecast())
    done = threading.Event()

    def read():
        while not done.is_set():
            reader = ForecastArchive(file)
            seen.add(len(reader.issuances("ZZ", KIND)))
            problems.extend([reader.problem] if reader.problem else [])

    thread = threading.Thread(target=read)
    thread.start()
    for hour in range(1, 40):
        writer.add("ZZ", make_forecast(hour))
    done.set()
    thread.join()
    assert problems == []
    assert len(seen) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["forecasts.json"]


def test_stored_issuances_give_the_same_correction():
    """The correction equals that of the original issuances."""
    zone, archive = make_archive(days=30, bias=120.0), ForecastArchive()
    for number in range(20):
        archive.add("ZZ", issuance(zone, number))
    newest, earlier, now = available(zone, 20)
    ours = correct(archive.extend_history("ZZ", newest), archive.issuances("ZZ", KIND), now)
    assert ours.values.tolist() == correct(newest, earlier, now).values.tolist()
