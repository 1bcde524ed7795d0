"""Forecasts that are kept in a file: the next process learns from them, the file stays small and whole."""

import json
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from lightning_green.planning import Forecast, Issues
from lightning_green.planning.forecasting import correct
from lightning_green.planning.forecasting.forecast_archive import GRIDS, HISTORY_HOURS
from tests.planning.archives import archive
from tests.planning.forecasting.test_correct import at, error, issue, live

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
KIND = "average/lifecycle"


def said(hour=0, value=300.0, count=48, minutes=60, **kwargs):
    begin = START + timedelta(hours=hour)
    times = [begin + timedelta(minutes=minutes * index) for index in range(count * 60 // minutes)]
    return Forecast(times, np.linspace(value, value + 50, len(times)), **{"issued_at": begin, **kwargs})


@pytest.mark.parametrize("minutes", [60, 30])
def test_a_new_process_corrects_as_the_old_one_would_have(tmp_path, minutes):
    zone, file = archive(days=30, bias=120.0), tmp_path / "forecasts.json"
    together, now = Issues(), None
    for day in range(10, 20):
        newest, _, now = live(zone, day)
        if minutes == 30:
            times = [time + timedelta(minutes=half) for time in newest.times for half in (0, 30)]
            newest = replace(newest, times=times, values=np.repeat(newest.values, 2) + np.tile([4.0, -4.0], 96))
        together.add("ZZ", newest)
        Issues(file).add("ZZ", newest)  # a process for each issue
    newest, _, now = live(zone, 20)
    restarted = Issues(file)
    assert restarted.problem is None
    assert [one.issued_at for one in restarted.of("ZZ", KIND)] == [one.issued_at for one in together.of("ZZ", KIND)]
    corrected = correct(restarted.continued("ZZ", newest), restarted.of("ZZ", KIND), now)
    expected = correct(together.continued("ZZ", newest), together.of("ZZ", KIND), now)
    assert corrected.values == pytest.approx(expected.values, abs=0.01)
    assert error(corrected, zone, now) < 0.7 * error(newest, zone, now)


def test_history_goes_on_where_the_forecast_has_forgotten_it(tmp_path):
    zone, issues = archive(days=40), Issues(tmp_path / "forecasts.json")
    for day in range(3, 30, 3):
        issues.add("ZZ", live(zone, day, days=3)[0])
    newest, _, now = live(zone, 30, days=3)
    longer = Issues(tmp_path / "forecasts.json").continued("ZZ", newest)
    assert longer.history_times == tuple(sorted(set(longer.history_times)))
    assert longer.history_times[0] == at(zone.first + 9)
    assert longer.history_times[-1] == newest.history_times[-1] == now - timedelta(hours=1)
    actual = [zone.actual[int(time.timestamp() // 3600) - zone.first] for time in longer.history_times]
    assert longer.history_values == pytest.approx(np.array(actual), abs=0.001)
    assert longer.values.tolist() == newest.values.tolist()


def test_hours_that_nobody_knew_stay_unknown(tmp_path):
    first = said(history_times=[START - timedelta(hours=9), START - timedelta(hours=3)], history_values=[100.0, 200.0])
    Issues(tmp_path / "f.json").add("ZZ", first)
    later = Issues(tmp_path / "f.json").continued("ZZ", said(6))
    assert dict(zip(later.history_times, later.history_values, strict=True)) == {
        START - timedelta(hours=9): 100.0,
        START - timedelta(hours=3): 200.0,
    }


def test_another_grid_and_another_kind_are_kept_apart(tmp_path):
    issues = Issues(tmp_path / "f.json")
    history = {"history_times": [START - timedelta(hours=1)], "history_values": [77.0]}
    issues.add("DE", said(0, **history))
    issues.add("DE", said(1, kind="marginal/direct"))
    issues.add("US CAL", said(2))
    again = Issues(tmp_path / "f.json")
    for held in (issues, again):
        assert [one.issued_at.hour for one in held.of("DE", KIND)] == [0]
        assert [one.issued_at.hour for one in held.of("DE", "marginal/direct")] == [1]
        assert [one.issued_at.hour for one in held.of("US CAL", KIND)] == [2]
        assert held.of("PL", KIND) == []
        assert held.continued("PL", said(3)).history_times == ()
        assert held.continued("DE", said(3, kind="marginal/direct")).history_times == ()
        assert held.continued("DE", said(3)).history_values.tolist() == [77.0]


def test_the_file_stays_small_whatever_comes(tmp_path):
    """A month and more of hourly issues, from five grids, some of ten days in quarters of an hour."""
    issues = Issues()
    for hour in range(24 * 30):
        past = START + timedelta(hours=hour - 1)
        issues.add("ZZ", said(hour, count=100, history_times=[past], history_values=[123.456789]))
    for number in range(5):
        issues.add(f"Z{number}", said(24 * 30, count=240, minutes=15))
    issues.add("ZZ", said(24 * 30, count=240, minutes=15))
    issues.path = tmp_path / "forecasts.json"
    issues.add("ZZ", said(24 * 30 + 1, count=240, minutes=15))
    assert issues.path.stat().st_size < 700_000
    again = Issues(issues.path)
    assert len(json.loads(issues.path.read_text())["grids"]) == GRIDS
    assert again.of("Z0", KIND) == again.of("Z1", KIND) == []
    assert len(again.of("Z4", KIND)) == 1
    assert len(again.of("Z4", KIND)[0].times) == 96


def test_issues_and_history_have_an_end(tmp_path):
    issues = Issues(tmp_path / "f.json")
    for day in range(0, 100, 2):
        past = [START + timedelta(hours=24 * day - back) for back in range(48, 0, -1)]
        issues.add("ZZ", said(24 * day, history_times=past, history_values=[5.0] * 48))
    again = Issues(tmp_path / "f.json")
    assert again.of("ZZ", KIND)[0].issued_at == START + timedelta(days=98 - 28)
    assert len(again.of("ZZ", KIND)) == 15
    assert len(again.continued("ZZ", said(24 * 98)).history_times) == HISTORY_HOURS


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"version": 9, "grids": {}}', '{"version": 1, "grids": {"ZZ average/lifecycle": {}}}',
     '{"version": 1, "grids": {"ZZ nonsense": {"first": 0, "history": [], "issues": [{"at": 0, "first": 0, '
     '"values": [1.0]}]}}}', "\x00\x00\x00"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_costs_only_what_was_learned(tmp_path, content):
    file = tmp_path / "forecasts.json"
    file.write_text(content)
    issues = Issues(file)
    assert "cannot be read" in issues.problem
    assert str(file) in issues.problem
    assert issues.of("ZZ", KIND) == []
    issues.add("ZZ", said())
    assert Issues(file).problem is None
    assert len(Issues(file).of("ZZ", KIND)) == 1


def test_a_folder_that_is_gone_costs_only_the_file(tmp_path):
    issues = Issues(tmp_path / "gone" / "forecasts.json")
    assert issues.problem is None
    issues.add("ZZ", said())
    issues.add("ZZ", said(1))
    assert "cannot be written" in issues.problem
    assert len(issues.of("ZZ", KIND)) == 2


def test_what_says_nothing_new_is_not_written(tmp_path):
    file = tmp_path / "forecasts.json"
    issues = Issues(file)
    issues.add("ZZ", None)
    issues.add("ZZ", Forecast([], []))
    assert not file.exists()
    issues.add("ZZ", said())
    written = file.stat().st_ino
    issues.add("ZZ", said())
    assert file.stat().st_ino == written
    issues.add("ZZ", said(1))
    assert file.stat().st_ino != written


def test_a_reader_never_sees_half_of_it(tmp_path):
    file, seen, problems = tmp_path / "forecasts.json", set(), []
    writer = Issues(file)
    writer.add("ZZ", said())
    done = threading.Event()

    def read():
        while not done.is_set():
            reader = Issues(file)
            seen.add(len(reader.of("ZZ", KIND)))
            problems.extend([reader.problem] if reader.problem else [])

    thread = threading.Thread(target=read)
    thread.start()
    for hour in range(1, 40):
        writer.add("ZZ", said(hour))
    done.set()
    thread.join()
    assert problems == []
    assert len(seen) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["forecasts.json"]


def test_issues_of_a_zone_are_what_correct_asks_for():
    """The same as handing over the issues by hand."""
    zone, issues = archive(days=30, bias=120.0), Issues()
    for number in range(20):
        issues.add("ZZ", issue(zone, number))
    newest, earlier, now = live(zone, 20)
    ours = correct(issues.continued("ZZ", newest), issues.of("ZZ", KIND), now)
    assert ours.values.tolist() == correct(newest, earlier, now).values.tolist()
