"""The Carbon Aware SDK."""

from datetime import timedelta

import pytest

from lightning_green.grid.errors import NoDataError, WrongZoneError
from lightning_green.grid.providers.carbon_aware_sdk import CarbonAwareSdkSignal, parse_emissions, parse_forecast
from lightning_green.grid.spec import grid_from_spec
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import NOW

VALID = {"location": "westeurope", "kind": "average/lifecycle", "url": "http://carbon.example"}


def test_last_day_and_the_forecast_of_the_location_are_requested(grid, build):
    signal = build("sdk")
    assert signal.refresh(NOW) == []
    (_, past, query, _), (_, ahead, other, _) = grid.requests
    assert (past, ahead) == ("/emissions/bylocations", "/emissions/forecasts/current")
    assert query == {"location": "westeurope", "time": "2026-01-14T11:00Z", "toTime": "2026-01-15T11:00Z"}
    assert other == {"location": "westeurope"}
    assert signal.intensity(NOW).value == pytest.approx(solar_day(NOW))
    assert signal.forecast(NOW, timedelta(hours=24)).values[1] == pytest.approx(solar_day(NOW + timedelta(hours=1)))


def test_kind_is_that_of_the_source_behind_the_sdk():
    signal = CarbonAwareSdkSignal(**{**VALID, "kind": "marginal/direct"}, resolution="5m")
    assert str(signal.kind) == "marginal/direct"
    assert signal.resolution() == timedelta(minutes=5)
    copy = grid_from_spec(signal.spec())
    assert (copy.spec(), copy.resolution()) == (signal.spec(), signal.resolution())


def test_answer_about_another_location_is_refused():
    row = {"location": "eastus", "time": "2026-01-15T10:00Z", "rating": 300}
    with pytest.raises(WrongZoneError, match="was asked for westeurope and answers for eastus"):
        parse_emissions([row], "westeurope")
    with pytest.raises(WrongZoneError):
        parse_forecast([{"location": "eastus", "forecastData": []}], "westeurope")
    assert parse_emissions([{**row, "location": "WestEurope"}], "westeurope").zone is None


def test_empty_list_of_forecasts_is_no_data():
    with pytest.raises(NoDataError, match="has no forecast"):
        parse_forecast([], "westeurope")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"location": " "}, "`location` should be a location"),
        ({"kind": "average"}, "`scope` should be"),
        ({"url": "carbon.example"}, "`url` should start with http"),
        ({"resolution": "30s"}, "`resolution` should be a minute or more"),
    ],
)
def test_invalid_argument_raises(argument, message):
    with pytest.raises(ValueError, match=message):
        CarbonAwareSdkSignal(**{**VALID, **argument})
