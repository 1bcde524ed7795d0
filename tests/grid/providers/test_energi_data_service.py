"""Energi Data Service."""

import json
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.errors import NoDataError, WrongZoneError
from lightning_green.grid.providers.energi_data_service import EnergiDataServiceSignal, parse_records
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import NOW

ROW = {"Minutes5UTC": "2026-01-15T10:20:00", "PriceArea": "DK1", "CO2Emission": 90.5}


@pytest.mark.parametrize(("zone", "area"), [("DK1", "DK1"), ("dk2", "DK2"), ("DK-DK1", "DK1"), (" DK-DK2 ", "DK2")])
def test_price_area_is_accepted_by_all_its_names(zone, area):
    assert EnergiDataServiceSignal(zone).zone == area


@pytest.mark.parametrize("zone", ["DK", "DE", "", None, 1])
def test_zone_that_is_no_price_area_raises(zone):
    with pytest.raises(ValueError, match='`zone` should be "DK1"'):
        EnergiDataServiceSignal(zone)


def test_times_are_requested_and_read_in_utc(grid, build):
    signal = build("eds")
    assert signal.refresh(NOW) == []
    (_, past, query, _), (_, ahead, other, _) = grid.requests
    assert (past, ahead) == ("/dataset/CO2Emis", "/dataset/CO2EmisProg")
    assert query["timezone"] == other["timezone"] == "UTC"
    assert (query["start"], other["start"]) == ("2026-01-14T10:00", "2026-01-15T10:00")
    assert json.loads(query["filter"]) == {"PriceArea": ["DK1"]}
    assert signal.intensity(NOW).value == pytest.approx(solar_day(NOW))
    assert parse_records({"records": [ROW]}, "DK1", "measured").past[0].time == datetime(
        2026, 1, 15, 10, 20, tzinfo=timezone.utc
    )


def test_request_covers_every_interval_of_its_span(grid, build):
    build("eds").refresh(NOW)
    (_, _, past, _), (_, _, ahead, _) = grid.requests
    assert int(past["limit"]) >= timedelta(hours=25) / timedelta(minutes=5)
    assert int(ahead["limit"]) >= timedelta(hours=48) / timedelta(minutes=5)


def test_rows_of_the_other_area_are_skipped():
    other = {**ROW, "PriceArea": "DK2", "CO2Emission": 5.0}
    answer = parse_records({"records": [other, ROW, other]}, "DK1", "forecast")
    assert [point.value for point in answer.forecast] == [90.5]
    assert answer.past == ()
    with pytest.raises(WrongZoneError, match="was asked for DK1 and answers for DK2"):
        parse_records({"records": [other]}, "DK1", "measured")


def test_empty_dataset_is_no_data():
    for records in ([], [{**ROW, "CO2Emission": None}]):
        with pytest.raises(NoDataError, match="has no value for DK1"):
            parse_records({"records": records}, "DK1", "measured")
