"""Parsing and formatting of durations."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_green.utilities.durations import format_duration, parse_duration


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.sampled_from(["", " "]))
def test_durations_are_parsed(days, hours, minutes, seconds, space):
    text = space.join(f"{days}d {hours}h {minutes}m {seconds}s".split())
    assert parse_duration(text) == timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    assert parse_duration(text.upper()) == parse_duration(text)


@given(st.timedeltas(timedelta(0), timedelta(days=999)))
def test_timedelta_is_returned_unchanged(duration):
    assert parse_duration(duration) == duration


@given(st.floats(-1e8, 1e8))
def test_formatted_duration_is_close(seconds):
    shown = format_duration(seconds)
    assert len(shown.split()) in (2, 4)
    read = parse_duration(shown.removeprefix("-")).total_seconds()
    assert shown.startswith("-") == (seconds < 0)
    # two units: seconds to a second, hours and minutes to half a minute, days and hours to an hour
    allowed = 0.5 if abs(seconds) < 90 else 30.0 if abs(seconds) < 86370 else 3600.0
    assert abs(read - abs(seconds)) <= allowed + 1e-6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("36h", 129600), ("90m", 5400), ("90min", 5400), ("1.5h", 5400), ("1d12h", 129600), ("0s", 0), (" 2 h ", 7200)],
)
def test_examples(text, seconds):
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "36", "h", "36 hours", "-1h", "1h-2m", "1,5h", "1w", "nan", "1e3h", "inf h"])
def test_invalid_text_is_refused(text):
    with pytest.raises(ValueError, match=r"`deadline` should be a duration such as"):
        parse_duration(text, "deadline")


def test_too_long_duration_is_refused():
    with pytest.raises(ValueError, match="`deadline` should be"):
        parse_duration("9" * 20 + "d", "deadline")


def test_negative_duration_is_refused():
    with pytest.raises(ValueError, match="`every` should not be negative"):
        parse_duration(timedelta(seconds=-1), "every")


@pytest.mark.parametrize("value", [36, 1.5, None, ["36h"]])
def test_wrong_type_is_refused(value):
    with pytest.raises(TypeError, match="`deadline` should be a string such as"):
        parse_duration(value, "deadline")
