"""The annual mean of a country."""

from datetime import datetime, timezone

import pytest

from lightning_green.grid.providers.annual import AnnualMean, annual_figure
from lightning_green.grid.spec import grid_from_spec

NOW = datetime(2026, 3, 1, 10, 20, tzinfo=timezone.utc)


@pytest.mark.parametrize("zone", ["DE", "DEU", "de", "eu-central-1"])
def test_annual_mean_of_a_country(zone):
    signal = AnnualMean(zone)
    assert 200 < signal.value < 600
    assert signal.intensity(NOW).quality == "static"
    assert "DEU" in signal.source
    assert signal.zone == "DE"
    assert grid_from_spec(signal.spec()).value == signal.value


@pytest.mark.parametrize("zone", ["", "ZZ", "Germany", "QQQ", "-", "DE-LU"])
def test_unknown_zone_is_refused(zone):
    with pytest.raises(ValueError, match="`zone` should be an Electricity Maps zone"):
        annual_figure(zone)


@pytest.mark.parametrize("zone", ["XK", "AQ", "52.5,13.4"])
def test_place_without_an_annual_mean_is_refused(zone):
    with pytest.raises(ValueError, match="with a known annual mean"):
        annual_figure(zone)
