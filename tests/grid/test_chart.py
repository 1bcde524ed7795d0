"""Carbon intensity as a text chart."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.chart import chart, hourly_values
from lightning_green.planning import Forecast

START = datetime(2026, 1, 1, 22, tzinfo=timezone.utc)


def bars(lines):
    return [line.split("┤")[1] for line in lines[:-1]]


def test_hourly_values_are_means_from_now_on():
    times = [START + timedelta(minutes=30 * half) for half in range(6)]
    forecast = Forecast(times, [100, 200, 300, 400, 500, 600])
    assert hourly_values(forecast, START, 2) == pytest.approx([150, 350])
    assert hourly_values(forecast, START + timedelta(minutes=30), 2) == pytest.approx([250, 450])


def test_hourly_values_are_empty_without_any_intensity():
    assert hourly_values(Forecast([], []), START, 24) == []


def test_bar_height_is_proportional_to_the_value():
    assert bars(chart([50, 100, 125, 200], START, height=4)) == ["   █", "  ▄█", " ███", "████"]


def test_hours_beyond_the_forecast_are_drawn_lighter():
    lines = bars(chart([200, 200, 200], START, known=1, height=3))
    assert lines == ["█░░"] * 3


def test_vertical_axis_is_labeled_with_the_maximum_and_zero():
    lines = chart([100, 400], START, height=4)
    assert lines[0].startswith("400 ┤")
    assert lines[3].startswith("  0 ┤")


def test_hours_are_labeled_every_six_hours_in_the_time_zone_of_now():
    eastern = START.astimezone(timezone(timedelta(hours=-5)))
    axis = chart([100] * 24, eastern)[-1].strip()
    assert axis.split() == ["17", "00", "06", "12"]
    assert [axis.index(label) for label in axis.split()] == [0, 7, 13, 19]


def test_label_that_would_overlap_the_first_is_omitted():
    assert chart([100] * 24, START)[-1].split() == ["22", "06", "12", "18"]


@pytest.mark.parametrize(("values", "height"), [([], 7), ([100], 0)])
def test_chart_without_values_or_lines_raises(values, height):
    with pytest.raises(ValueError, match="`values` should not be empty and `height` should be 1 or more"):
        chart(values, START, height=height)
