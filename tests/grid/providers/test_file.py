"""A file that another machine keeps up to date."""

import os
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.errors import NoDataError, WrongZoneError
from lightning_green.grid.providers.file import FileSignal, parse_rows
from lightning_green.grid.spec import grid_from_spec
from lightning_green.utilities.http.errors import UnreadableError

NOW = datetime(2026, 1, 15, 10, 20, tzinfo=timezone.utc)
HEADER = "datetime,carbon_intensity,quality,zone,kind\n"
ROW = "2026-01-15T10:00Z,{},measured,DE,average/lifecycle\n"


def write(path, text, at=NOW):
    path.write_text(text)
    os.utime(path, (at.timestamp(), at.timestamp()))


def rows(text, zone="DE", kind="average/lifecycle"):
    return parse_rows(text.encode(), zone, kind, NOW)


def test_file_is_read_again_after_each_change(tmp_path):
    path = tmp_path / "de.csv"
    write(path, HEADER + ROW.format(300), NOW)
    signal = FileSignal(str(path), zone="DE")
    assert len(signal.fetch(NOW).answers) == 1
    assert signal.fetch(NOW).answers == (), "the file did not change"
    assert len(signal.fetch(NOW, force=True).answers) == 1
    write(path, HEADER + ROW.format(301), NOW + timedelta(minutes=1))
    signal.refresh(NOW)
    assert signal.intensity(NOW).value == 301.0


def test_missing_file_is_a_problem_until_it_exists(tmp_path):
    path = tmp_path / "de.csv"
    signal = FileSignal(str(path), zone="DE")
    assert signal.load_cache(NOW) is False
    assert signal.problem == f"{path} cannot be read (No such file or directory)"
    write(path, HEADER + ROW.format(300))
    assert signal.load_cache(NOW) is True
    assert signal.problem is None


def test_last_change_of_the_file_is_the_time_of_issue(tmp_path):
    path = tmp_path / "de.csv"
    written = NOW - timedelta(hours=2)
    write(path, HEADER + ROW.format(300) + "2026-01-15T11:00Z,310,forecast,DE,average/lifecycle\n", written)
    signal = FileSignal(str(path), zone="DE")
    signal.refresh(NOW)
    assert signal.forecast(NOW, timedelta(hours=2)).issued_at == written
    assert signal.intensity(NOW).issued_at == written


def test_incomplete_last_line_is_dropped():
    assert [point.value for point in rows(HEADER + ROW.format(300) + "2026-01-15T11:00Z,31").past] == [300.0]
    with pytest.raises(NoDataError):
        rows(HEADER + ROW.format(300)[:-1])


def test_predictions_are_separate_and_rows_without_a_value_are_skipped():
    text = "datetime,carbon_intensity,quality\n"
    text += "2026-01-15T12:00Z,12,forecast\n2026-01-15T11:00Z,11,forecast\n2026-01-15T10:00Z,10,\n"
    text += "2026-01-15T09:00Z,9,estimated\n2026-01-15T08:00Z,unknown,measured\n2026-01-15T07:00Z,7,guessed\nnever,6,\n"
    answer = rows(text)
    assert [(point.value, point.quality) for point in answer.past] == [(9.0, "estimated"), (10.0, "measured")]
    assert [point.value for point in answer.forecast] == [11.0, 12.0]


def test_file_of_another_zone_or_kind_is_refused():
    text = HEADER + ROW.format(300)
    assert rows(text, "de").past == rows(text, None).past
    with pytest.raises(WrongZoneError, match="the file is about zone DE, expected FR"):
        rows(text, "FR")
    with pytest.raises(WrongZoneError, match="are average/lifecycle, expected average/direct"):
        rows(text, kind="average/direct")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"", "no columns `datetime` and `carbon_intensity`"),
        (b"time,value\n2026-01-15T10:00Z,300\n", "no columns `datetime` and `carbon_intensity`"),
    ],
)
def test_file_of_another_form_is_refused(content, message):
    with pytest.raises(UnreadableError, match=message):
        parse_rows(content, "DE", "average/lifecycle", NOW)


def test_spec_round_trip_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    signal = FileSignal("de.csv", "DE", "average/direct", resolution="15m", every="30s", max_age="2h")
    monkeypatch.chdir("/")
    copy = grid_from_spec(signal.spec())
    assert copy.path == tmp_path / "de.csv"
    assert copy.spec() == signal.spec()
    assert (copy.resolution(), copy.seconds_to_next_fetch(NOW)) == (timedelta(minutes=15), 30.0)


@pytest.mark.parametrize(("argument", "name"), [({"resolution": "30s"}, "resolution"), ({"every": "0.5s"}, "every")])
def test_invalid_argument_raises(argument, name):
    with pytest.raises(ValueError, match=f"`{name}` should be a"):
        FileSignal("de.csv", **argument)
