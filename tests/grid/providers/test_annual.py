"""The annual mean of a country."""

from datetime import datetime, timezone

import pytest

from lightning_green.grid.providers.annual import AnnualMean, annual_figure
from lightning_green.grid.spec import grid_from_spec

NOW = datetime(2026, 3, 1, 10, 20, tzinfo=timezone.utc)


@pytest.mark.parametrize("zone", ["DE", "DEU", "de", "DE-LU"])
def test_annual_mean_of_a_country(zone):
    signal = AnnualMean(zone)
    assert 200 < signal.value < 600
    assert signal.intensity(NOW).quality == "static"
    assert "DEU" in signal.source
    assert grid_from_spec(signal.spec()).value == signal.value


@pytest.mark.parametrize("zone", ["", "ZZ", "Germany", "QQQ", "-"])
def test_unknown_country_is_refused(zone):
    with pytest.raises(ValueError, match='`zone` should be an ISO country code such as "DE"'):
        annual_figure(zone)
