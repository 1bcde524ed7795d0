"""Electricity Maps."""

import pytest

from lightning_green.grid.errors import InventedDataError, WrongUnitError
from lightning_green.grid.providers.electricity_maps import (
    ElectricityMapsSignal,
    parse_access,
    parse_forecast,
    parse_history,
    parse_latest,
)
from lightning_green.utilities.http.errors import RejectedError
from tests.helpers.live_signals import NOW

ROW = {"zone": "DE", "carbonIntensity": 300, "datetime": "2026-01-15T10:00:00.000Z"}


def test_zone_and_emission_factors_are_requested(grid, build):
    build("em").refresh(NOW)
    assert [path for _, path, _, _ in grid.requests] == [
        f"/v3/carbon-intensity/{name}" for name in ("latest", "history", "forecast")
    ]
    assert all(query["zone"] == "DE" for _, _, query, _ in grid.requests)
    assert all(query["emissionFactorType"] == "lifecycle" for _, _, query, _ in grid.requests)
    assert grid.requests[2][2]["horizonHours"] == "72"


def test_zone_of_coordinates_is_never_that_of_the_ip_address(grid):
    signal = ElectricityMapsSignal("52.5,13.4", url=grid.url("em"))
    assert signal.refresh(NOW) == []
    for _, _, query, _ in grid.requests:
        assert (query["lat"], query["lon"], query["shouldUseFallbackCallerLookup"]) == ("52.5", "13.4", "false")
    assert signal.intensity(NOW) is not None, "the service finds the zone"


def test_emission_factors_of_another_scope_are_refused():
    body = {**ROW, "emissionFactorType": "lifecycle"}
    assert parse_latest(body, "lifecycle").past[0].value == 300
    with pytest.raises(WrongUnitError, match="lifecycle emission factors instead of direct"):
        parse_latest(body, "direct")
    assert str(ElectricityMapsSignal("DE", scope="direct").kind) == "average/direct"


def test_artificial_values_of_a_sandbox_token_are_refused():
    with pytest.raises(InventedDataError, match="sandbox"):
        parse_latest({**ROW, "estimationMethod": "SANDBOX_MODE_DATA"})
    with pytest.raises(InventedDataError, match="sandbox"):
        parse_history({"zone": "DE", "history": [{**ROW, "estimationMethod": "SANDBOX_MODE_DATA"}]})
    with pytest.raises(InventedDataError, match="sandbox"):
        parse_forecast({"forecast": [ROW], "_disclaimer": "Sandbox mode"})


def test_estimates_are_marked():
    body = {"zone": "DE", "data": [{**ROW, "isEstimated": True}, {**ROW, "datetime": "2026-01-15T11:00Z"}]}
    assert [point.quality for point in parse_history(body).past] == ["estimated", "measured"]


def test_routes_of_the_token_are_listed(grid, build):
    signal = build("em")
    assert "carbon-intensity/forecast" in signal.access()
    grid.faults = {"em": "no_forecast_in_plan"}
    assert signal.access() == {"carbon-intensity/latest", "carbon-intensity/history"}
    assert ElectricityMapsSignal("52.5,13.4").access() is None
    assert parse_access({"DE": {"zoneName": "Germany"}}, "DE") is None
    with pytest.raises(RejectedError, match="does not know the zone PL"):
        parse_access({"DE": {}}, "PL")
