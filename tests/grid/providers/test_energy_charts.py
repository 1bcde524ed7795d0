"""energy-charts.info."""

from datetime import timedelta

import pytest

from lightning_green.grid.providers.energy_charts import EnergyChartsSignal, parse_co2eq
from lightning_green.utilities.http.errors import UnreadableError
from tests.helpers.live_signals import NOW

SECONDS = [1768471200, 1768472100, 1768473000]


@pytest.mark.parametrize(("zone", "country"), [("DE", "DE"), ("deu", "DE"), ("ch", "CH")])
def test_country_is_accepted_by_both_codes(zone, country):
    assert EnergyChartsSignal(zone).zone == country


@pytest.mark.parametrize("zone", ["SE-SE3", "52.5,13.4"])
def test_zone_that_is_no_country_raises(zone):
    with pytest.raises(ValueError, match='`zone` should be a country such as "DE"'):
        EnergyChartsSignal(zone)


def test_present_and_the_last_week_are_requested(grid, build):
    signal = build("charts")
    assert signal.refresh(NOW) == []
    assert [query for _, _, query, _ in grid.requests] == [
        {"country": "de"},
        {"country": "de", "start": "2026-01-08", "end": "2026-01-15"},
    ]
    grid.requests.clear()
    grid.now = NOW + timedelta(minutes=30)
    signal.refresh(grid.now)
    assert [query for _, _, query, _ in grid.requests] == [{"country": "de"}], "the week changes slowly"


def test_forecast_is_used_where_nothing_is_measured_yet():
    answer = parse_co2eq({"unix_seconds": SECONDS, "co2eq": [300, None, None], "co2eq_forecast": [310, 320, None]})
    assert [(point.value, point.quality) for point in answer.past] == [(300.0, "measured")]
    assert [(point.value, point.quality) for point in answer.forecast] == [(320.0, "forecast")]
    assert [point.time.timestamp() for point in (*answer.past, *answer.forecast)] == SECONDS[:2]


def test_answer_without_a_forecast_has_only_measured_values():
    assert parse_co2eq({"unix_seconds": SECONDS, "co2eq": [1, 2, 3]}).forecast == ()


@pytest.mark.parametrize(
    "change", [{"co2eq": [300, 301]}, {"co2eq_forecast": [1]}, {"co2eq": None}, {"unix_seconds": 5}]
)
def test_columns_that_do_not_match_raise(change):
    body = {"unix_seconds": SECONDS, "co2eq": [1, 2, 3], "co2eq_forecast": [1, 2, 3]}
    with pytest.raises(UnreadableError, match="energy-charts answers with"):
        parse_co2eq({**body, **change})


@pytest.mark.parametrize("zone", ["US", "US-CAL-CISO", "52.5,13.4"])
def test_zone_that_is_not_covered_is_refused(zone):
    with pytest.raises(ValueError, match=r"`zone` should be a country .* covers \(AL, AT, .*got '" + zone):
        EnergyChartsSignal(zone)
