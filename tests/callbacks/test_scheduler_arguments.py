"""The arguments of the scheduler after their checks."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.callbacks._scheduler_arguments import (
    PlanArguments,
    check_deadline,
    check_hours,
    check_plan_arguments,
)

VALID = {
    "deadline": None,
    "on_pause": "auto",
    "hold_power": 0.25,
    "resume_cost": 0.1,
    "min_saving": 0.0,
    "delay_price": 0.0,
}


def check(**given):
    return check_plan_arguments(**(VALID | given))


def test_checked_arguments_are_converted():
    found = check(deadline="36h", on_pause="exit", hold_power=1, resume_cost=2, min_saving=1, delay_price=3)
    assert found == PlanArguments(timedelta(hours=36), "exit", 1.0, 2.0, 1.0, 3.0)
    assert {type(value) for value in (found.hold_power, found.resume_cost, found.min_saving)} == {float}


def test_measured_costs_are_kept_as_they_are():
    found = check(hold_power="measured", resume_cost="measured")
    assert (found.hold_power, found.resume_cost) == ("measured", "measured")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"on_pause": "stop"}, '`on_pause` should be "auto", "hold" or "exit", got \'stop\''),
        ({"hold_power": 1.01}, '`hold_power` should .* at most 1 or "measured"'),
        ({"resume_cost": -1}, '`resume_cost` should .* hours or "measured"'),
        ({"min_saving": "measured"}, "`min_saving` should .* at most 1, got"),
        ({"delay_price": -0.1}, "`delay_price` should .* gCO2e per hour, got"),
        ({"return_time": -1}, '`return_time` should .* hours or "measured"'),
        ({"return_time": "soon"}, "`return_time` should be a duration"),
        ({"deadline": "0h"}, "`deadline` should be longer than nothing"),
    ],
)
def test_argument_out_of_its_range_raises_with_its_name(given, message):
    with pytest.raises(ValueError, match=message):
        check(**given)


def test_deadline_at_a_time_is_returned_in_utc():
    noon = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    found = check_deadline(noon)
    assert found == noon
    assert found.tzinfo is timezone.utc


@pytest.mark.parametrize("text", ["2030-01-01T12:00:00+00:00", "2030-01-01 13:00:00+01:00", "2030-01-01T12:00:00Z"])
def test_deadline_at_a_time_of_yaml_is_returned_in_utc(text):
    assert check_deadline(text) == datetime(2030, 1, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize("text", ["2030-01-01T12:00:00", "2030-01-01"])
def test_deadline_of_yaml_without_a_time_zone_raises(text):
    with pytest.raises(ValueError, match="`deadline` should have a time zone"):
        check_deadline(text)


def test_deadline_without_a_time_zone_raises():
    with pytest.raises(ValueError, match="`deadline` should have a time zone"):
        check_deadline(datetime(2030, 1, 1))


def test_deadline_after_a_duration_is_returned_as_a_duration():
    assert check_deadline("1h30m") == check_deadline(timedelta(hours=1.5)) == timedelta(hours=1.5)
    assert check_deadline(None) is None


@pytest.mark.parametrize("value", [0.5, "30min", "30m", timedelta(minutes=30)])
def test_return_time_is_a_number_of_hours_or_a_duration(value):
    assert check_hours("return_time", value) == check(return_time=value).return_time == 0.5
    assert check().return_time == "measured"
