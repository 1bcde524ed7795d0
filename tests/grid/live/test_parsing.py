"""Functions that parsers are built from."""

import math
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.errors import NoDataError
from lightning_green.grid.live.parsing import (
    collect_points,
    floor_time,
    format_minutes,
    parse_list,
    parse_object,
    parse_time,
    parse_unix_time,
    parse_value,
    require_points,
    sort_points,
    truncate_text,
)
from lightning_green.grid.live.query import Answer, Point
from lightning_green.utilities.http.errors import UnreadableError

AT = datetime(2026, 3, 1, 10, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    ["2026-03-01T10:30Z", "2026-03-01T10:30z", "2026-03-01T10:30:00", "2026-03-01T12:30:00+02:00",
     "2026-03-01 05:30:00-05:00", "2026-03-01T10:30:00.0000000+00:00", "2026-03-01T10:30:00.5Z", " 2026-03-01T10:30Z "],
)  # fmt: skip
def test_iso_time_is_converted_to_utc(text):
    time = parse_time(text)
    assert time == AT
    assert time.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "raw", [None, 5, "10:30", "yesterday at noon", "2026-02-30T00:00Z", "1999-12-31T23:59Z", "2200-01-01T00:00Z"]
)
def test_invalid_or_implausible_time_is_none(raw):
    assert parse_time(raw) is None


def test_unix_time_is_a_plausible_number_of_seconds():
    assert parse_unix_time(AT.timestamp()) == AT
    for raw in (True, "1772361000", 0, -1, AT.timestamp() * 1000, math.nan, math.inf, None):
        assert parse_unix_time(raw) is None


def test_value_is_multiplied_by_the_factor():
    assert parse_value(200, 1.5) == 300.0
    assert parse_value(0) == 0.0


@pytest.mark.parametrize("raw", [None, True, "300", -0.1, 100_001, math.nan, math.inf, 10**400, [300]])
def test_impossible_value_is_none(raw):
    assert parse_value(raw) is None


def test_list_is_found_under_the_first_of_its_names():
    rows = [{"a": 1}]
    assert parse_list(rows) == rows
    assert parse_list({"data": rows}, "history", "data") == rows
    assert parse_list({"data": [], "history": rows}, "history", "data") == rows


def test_rows_that_are_not_objects_are_skipped():
    assert parse_list([1, None, {"a": 1}, "x"]) == [{"a": 1}]


@pytest.mark.parametrize("parse", [parse_object, parse_list, lambda body: parse_list(body, "data")])
@pytest.mark.parametrize("body", [None, 3, "text"])
def test_body_of_another_type_raises(parse, body):
    with pytest.raises(UnreadableError):
        parse(body)


def test_missing_list_raises_with_its_name():
    with pytest.raises(UnreadableError, match="the answer has no list `history`"):
        parse_list({"data": 3}, "history", "data")


def test_points_are_ascending_complete_and_the_last_of_a_time():
    later = AT + timedelta(hours=1)
    rows = [(later, 3.0, "measured"), (AT, 1.0, "measured"), (None, 4.0, "measured"), (AT, None, "measured")]
    assert collect_points(rows) == (Point(AT, 1.0), Point(later, 3.0))
    assert sort_points([Point(AT, 1.0), Point(AT, 2.0)]) == (Point(AT, 2.0),)


def test_answer_without_a_value_raises():
    for answer in (Answer(past=(Point(AT, 1.0),)), Answer(forecast=(Point(AT, 1.0),))):
        assert require_points(answer) is answer
    with pytest.raises(NoDataError, match="no usable value"):
        require_points(Answer(zone="DE"))


def test_text_of_a_server_is_short_printable_ascii():
    assert truncate_text("a\nb\x1b[31mé" + "x" * 100) == "ab[31m" + "x" * 21
    assert truncate_text(12) == "12"
    assert truncate_text({"a": 1}) == "an object"
    assert truncate_text(None) == "null"


def test_time_is_floored_to_the_step_and_formatted_in_utc():
    at = datetime(2026, 3, 1, 12, 44, 59, tzinfo=timezone(timedelta(hours=2)))
    assert floor_time(at, timedelta(minutes=30)) == AT
    assert format_minutes(at) == "2026-03-01T10:44Z"
