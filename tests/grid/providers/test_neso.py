"""The Carbon Intensity API of Great Britain."""

import pytest

from lightning_green.grid.errors import WrongZoneError
from lightning_green.grid.providers.neso import NesoSignal, parse_forecast, parse_past
from lightning_green.utilities.http.errors import UnreadableError
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import FAST, NOW


def row(hour, actual, forecast=100):
    return {"from": f"2026-01-15T{hour:02d}:00Z", "intensity": {"actual": actual, "forecast": forecast}}


@pytest.mark.parametrize(
    ("text", "zone", "where"),
    [
        (None, "GB", ""),
        ("GB", "GB", ""),
        ("GB-13", "GB-13", "/regionid/13"),
        ("13", "GB-13", "/regionid/13"),
        ("sw1a", "GB-SW1A", "/postcode/SW1A"),
        ("GB-RG10", "GB-RG10", "/postcode/RG10"),
    ],
)
def test_country_region_or_postcode_is_requested(text, zone, where):
    signal = NesoSignal.from_zone(text)
    assert signal.zone == zone
    base = signal.url + ("/regional/intensity" if where else "/intensity")
    assert [query.url for query in signal.queries(NOW)] == [
        f"{base}/2026-01-15T10:00Z/fw48h{where}",
        f"{base}/2026-01-14T10:00Z/2026-01-15T10:00Z{where}",
    ]


def test_answer_of_later_half_hours_has_the_same_cache_entry():
    signal = NesoSignal(region=13)
    later = signal.queries(NOW.replace(hour=15))
    assert [query.identity for query in signal.queries(NOW)] == [query.identity for query in later]
    assert len({query.identity for query in later} - {""}) == 2


@pytest.mark.parametrize("region", [None, 13])
def test_values_of_the_country_and_of_a_region_are_read(grid, region):
    signal = NesoSignal(region=region, url=grid.url("neso"))
    signal.fetcher.limits = FAST
    assert signal.refresh(NOW) == []
    assert signal.intensity(NOW).value == pytest.approx(solar_day(NOW))


def test_values_that_are_not_settled_are_estimates_in_the_past_and_forecasts_ahead():
    body = {"data": [row(8, 90), row(9, None)]}
    assert [(point.value, point.quality) for point in parse_past(body).past] == [(90, "measured"), (100, "estimated")]
    answer = parse_forecast(body)
    assert [(point.value, point.quality) for point in answer.past] == [(90, "measured")]
    assert [(point.value, point.quality) for point in answer.forecast] == [(100, "forecast")]


def test_region_may_be_in_a_list_of_one():
    region = {"regionid": 13, "data": [row(8, 90)]}
    assert parse_past({"data": [region]}, 13) == parse_past({"data": region}, 13)


def test_answer_about_another_region_or_without_values_is_refused():
    with pytest.raises(WrongZoneError, match="was asked for region 13 and answers for 3"):
        parse_past({"data": {"regionid": 3, "data": [row(8, 90)]}}, 13)
    with pytest.raises(UnreadableError, match="without a list `data`"):
        parse_past({"data": {"regionid": 13}}, 13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"region": 18}, "`region` should be a number from 1 to 17, got 18"),
        ({"region": "13"}, "`region` should be a number"),
        ({"postcode": "RG10 9NY"}, "`postcode` should be an outward postcode"),
        ({"region": 1, "postcode": "RG10"}, "Either `region` or `postcode`"),
    ],
)
def test_invalid_argument_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        NesoSignal(**arguments)
