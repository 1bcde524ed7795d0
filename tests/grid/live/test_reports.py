"""Messages about failures and recoveries, each of them once."""

from datetime import timedelta

import pytest

from lightning_green.grid.errors import NoDataError
from lightning_green.grid.live.query import Failure
from lightning_green.grid.live.reports import FailureReports, describe_substitute
from lightning_green.grid.live.snapshot import Found
from lightning_green.utilities.http.errors import UnreachableError
from tests.helpers.live_signals import NOW

DOWN = Failure("now", UnreachableError("the service is down"))
EMPTY = Failure("now", NoDataError("the answer is empty"))
NO_FORECAST = Failure("forecast", NoDataError("no forecast in the plan"), optional=True)
SUBSTITUTE = "the last value is used"


@pytest.fixture
def reports():
    return FailureReports("my-utility")


def test_same_failure_is_reported_once_until_the_recovery(reports):
    for _ in range(3):
        reports.update([DOWN], SUBSTITUTE)
    assert reports.pop_messages() == ["my-utility: the service is down; the last value is used."]
    assert reports.pop_messages() == []
    reports.update([], SUBSTITUTE)
    assert reports.pop_messages() == ["my-utility answers again (now)."]
    reports.update([DOWN], SUBSTITUTE)
    assert len(reports.pop_messages()) == 1


def test_another_failure_of_the_same_request_is_reported(reports):
    reports.update([DOWN], SUBSTITUTE)
    reports.update([EMPTY], SUBSTITUTE)
    assert [message.split(";")[0] for message in reports.pop_messages()] == [
        "my-utility: the service is down",
        "my-utility: the answer is empty",
    ]
    assert reports.problem == "the answer is empty"


def test_problem_is_the_current_failure_of_a_required_request(reports):
    reports.update([NO_FORECAST], SUBSTITUTE)
    assert reports.problem is None
    assert reports.pop_messages() == ["my-utility: no forecast in the plan; the source provides no forecast."]
    reports.update([NO_FORECAST, DOWN], SUBSTITUTE)
    assert reports.problem == "the service is down"
    reports.update([NO_FORECAST], SUBSTITUTE)
    assert reports.problem is None
    assert reports.pop_messages()[-1] == "my-utility answers again (now)."


def test_bug_is_reported_by_the_name_of_its_exception_only(reports):
    for _ in range(2):
        reports.report_bug(KeyError("secret"))
    assert reports.problem == "an unexpected KeyError"
    messages = reports.pop_messages()
    assert len(messages) == 1
    assert "secret" not in messages[0]


@pytest.mark.parametrize(
    ("minutes", "direction"), [(11, "ahead of"), (-11, "behind"), (10, None), (-10, None), (None, None)]
)
def test_clock_difference_above_ten_minutes_is_reported_once(reports, minutes, direction):
    for _ in range(2):
        reports.report_clock_skew(None if minutes is None else timedelta(minutes=minutes))
    messages = reports.pop_messages()
    if direction is None:
        assert messages == []
    else:
        assert messages == [f"This machine's clock is 11 min {direction} the clock of my-utility; check both clocks."]


def test_number_of_messages_that_nobody_reads_is_limited(reports):
    for number in range(1000):
        reports.report_once(str(number), str(number))
    messages = reports.pop_messages()
    assert len(messages) <= 100
    assert messages[-1] == "999"


@pytest.mark.parametrize(
    ("quality", "age", "clause"),
    [
        ("measured", timedelta(0), "the last value is used"),
        ("measured", timedelta(hours=3), "the last value (3 h old) is used"),
        ("forecast", timedelta(0), "the last forecast is used"),
        ("estimated", timedelta(0), "the last value is used"),
        ("estimated", timedelta(days=1), "the same hour of an earlier day is used"),
    ],
)
def test_value_in_use_is_described(quality, age, clause):
    assert describe_substitute(Found(NOW - age, 300.0, quality, age)) == clause
    assert describe_substitute(None) == "no value is known, so the run does not wait"
