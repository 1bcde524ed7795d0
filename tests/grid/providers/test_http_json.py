"""Any address that returns JSON."""

from datetime import timedelta

import pytest

from lightning_green.grid.providers.http_json import Fields, HttpJsonSignal, check_arguments, parse_body
from lightning_green.grid.spec import grid_from_spec
from lightning_green.utilities.http.errors import UnreadableError
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import FAST, NOW

HOUR = timedelta(hours=1)
VALUE_ONLY = Fields("data.0.g", None, None, "g", "t", None, 1.0)


def fields(**kwargs):
    return Fields(**{**vars(VALUE_ONLY), **kwargs})


def test_present_value_and_forecast_are_found_by_their_paths(grid, build):
    signal = build("json")
    assert signal.refresh(NOW) == []
    assert [(path, query) for _, path, query, _ in grid.requests] == [("/co2", {})]
    assert signal.intensity(NOW).value == pytest.approx(solar_day(NOW))
    assert signal.forecast(NOW, 24 * HOUR).values[5] == pytest.approx(solar_day(NOW + 5 * HOUR))


def test_values_are_multiplied_by_the_factor(grid):
    signal = HttpJsonSignal(grid.url("json") + "/co2", value="now.g", time="now.t", factor=0.5)
    signal.fetcher.limits = FAST
    signal.refresh(NOW)
    assert signal.intensity(NOW).value == pytest.approx(solar_day(NOW) / 2)
    answer = parse_body(
        {"data": [{"g": 300}], "next": [{"g": 100, "t": NOW.isoformat()}]}, fields(forecast="next", factor=2.0), NOW
    )
    assert (answer.past[0].value, answer.forecast[0].value) == (600.0, 200.0)


def test_value_without_a_time_applies_to_the_time_of_the_request():
    assert parse_body({"data": [{"g": 300}]}, VALUE_ONLY, NOW).past[0].time == NOW


@pytest.mark.parametrize("time", [NOW.isoformat(), NOW.timestamp()])
def test_time_is_iso_8601_or_seconds_since_the_epoch(time):
    answer = parse_body({"data": [{"g": 300}], "at": time}, fields(time="at"), NOW + HOUR)
    assert answer.past[0].time == NOW


def test_zone_of_the_answer_must_be_present_and_equal(grid, build):
    with pytest.raises(UnreadableError, match=r"the answer has no zone at `place\.code`"):
        parse_body({"data": [{"g": 300}]}, fields(zone="place.code"), NOW)
    grid.faults = {"json": "wrong_zone"}
    assert build("json").refresh(NOW) == ["http was asked for zone DE and answers for FR"]


def test_spec_round_trip_keeps_every_argument(tmp_path):
    signal = HttpJsonSignal(
        "http://meter.example/co2", "DE", "average/direct", "a", "b", "c", "d", "e", "f", 2.0, "15m",
        token_file=str(tmp_path / "token"), max_age="2h",
    )  # fmt: skip
    copy = grid_from_spec(signal.spec())
    assert copy.spec() == signal.spec()
    assert (copy.fields, copy.resolution(), copy.max_age) == (signal.fields, timedelta(minutes=15), 2 * HOUR)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("meter.example", 1.0, "1h"), "`url` should start with http"),
        (("http://meter.example", 0.0, "1h"), "`factor` should be above 0, got 0.0"),
        (("http://meter.example", float("nan"), "1h"), "`factor` should be above 0, got nan"),
        (("http://meter.example", 1.0, "9s"), "`resolution` should be ten seconds or more"),
    ],
)
def test_invalid_argument_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_arguments(*arguments)
