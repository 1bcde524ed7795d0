"""WattTime: marginal intensities, regions and the login."""

import pytest

from lightning_green.grid.errors import WrongUnitError
from lightning_green.grid.providers.watttime import WattTimeSignal, parse_forecast, parse_historical, parse_login
from lightning_green.utilities.http.errors import RefusedError, UnreadableError
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import FAST, NOW

META = {"region": "PSCO", "units": "lbs_co2_per_mwh"}
ROW = {"point_time": "2026-01-15T10:00:00+00:00", "value": 1000}


def test_pounds_per_megawatt_hour_are_converted_to_grams_per_kilowatt_hour():
    answer = parse_historical({"data": [ROW], "meta": META})
    assert answer.past[0].value == pytest.approx(453.59237)
    assert answer.zone == "PSCO"


def test_imputed_values_are_estimates():
    rows = [ROW, {**ROW, "point_time": "2026-01-15T10:05:00+00:00", "imputed_data_used": True}]
    assert [point.quality for point in parse_historical({"data": rows, "meta": META}).past] == ["measured", "estimated"]


@pytest.mark.parametrize(
    ("meta", "error", "message"),
    [
        ({**META, "units": "percentile"}, WrongUnitError, "a percentile, which is not a carbon intensity"),
        ({**META, "units": "kg_co2_per_mwh"}, WrongUnitError, "kg_co2_per_mwh instead of lbs_co2_per_mwh"),
        ({"region": "PSCO"}, WrongUnitError, "null instead of lbs_co2_per_mwh"),
        (None, UnreadableError, "without `meta`"),
    ],
)
def test_values_in_another_unit_are_refused(meta, error, message):
    with pytest.raises(error, match=message):
        parse_forecast({"data": [ROW], "meta": meta})


def test_region_of_coordinates_is_looked_up_once_and_its_values_follow_at_once(grid):
    signal = WattTimeSignal("38.5,-121.5", url=grid.url("watttime"))
    signal.fetcher.limits = FAST
    assert signal.refresh(NOW) == []
    assert signal.zone == "CAISO_NORTH"
    assert signal.intensity(NOW).value == pytest.approx(solar_day(NOW))
    signal.refresh(NOW, force=True)
    assert grid.count("watttime", "region-from-loc") == 1
    (query,) = (query for _, path, query, _ in grid.requests if path.endswith("region-from-loc"))
    assert query == {"latitude": "38.5", "longitude": "-121.5", "signal_type": "co2_moer"}


def test_coordinates_without_a_region_are_a_problem(grid):
    signal = WattTimeSignal("0,-121.5", url=grid.url("watttime"))
    signal.fetcher.limits = FAST
    signal.refresh(NOW)
    assert "(404)" in signal.problem
    assert signal.intensity(NOW) is None
    with pytest.raises(RefusedError, match="no region at these coordinates"):
        signal._set_region({"region": "not a region"})


def test_close_between_the_region_and_its_values_sends_no_second_round(grid, build):
    signal = WattTimeSignal("38.5,-121.5", url=grid.url("watttime"))
    set_region = signal._set_region

    def close_after_region(body):
        answer = set_region(body)
        signal.close()
        return answer

    signal._set_region = close_after_region
    signal.refresh(NOW)
    assert signal.region == "CAISO_NORTH"
    assert grid.count("watttime", "/v3/") == 1


def test_region_and_signal_of_the_marginal_intensity_are_requested(grid, build):
    signal = build("watttime")
    signal.refresh(NOW)
    queries = [query for _, path, query, _ in grid.requests if path != "/login"]
    assert [(query["region"], query["signal_type"]) for query in queries] == [("CAISO_NORTH", "co2_moer")] * 2
    assert queries[0]["horizon_hours"] == "72"
    assert (queries[1]["start"], queries[1]["end"]) == ("2026-01-14T10:20Z", "2026-01-15T10:20Z")
    assert str(signal.kind) == "marginal/direct"
    assert WattTimeSignal(" caiso_north ").zone == "CAISO_NORTH"


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": 5}, {"token": "a\nb"}, {"token": "é"}])
def test_login_without_a_token_is_unreadable(body):
    with pytest.raises(UnreadableError, match="answers without a token"):
        parse_login(body)


@pytest.mark.parametrize(
    ("zone", "message"),
    [("", "`zone` should be"), (" ", "`zone` should be"), (None, "`zone` should be"), ("91,0", "latitude,longitude")],
)
def test_invalid_zone_raises(zone, message):
    with pytest.raises(ValueError, match=message):
        WattTimeSignal(zone)
