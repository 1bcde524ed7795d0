"""Every provider as a signal of the fake services, and the fixtures that create them."""

from datetime import datetime, timezone

import pytest

from lightning_green.grid.providers.carbon_aware_sdk import CarbonAwareSdkSignal
from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
from lightning_green.grid.providers.energi_data_service import EnergiDataServiceSignal
from lightning_green.grid.providers.energy_charts import EnergyChartsSignal
from lightning_green.grid.providers.http_json import HttpJsonSignal
from lightning_green.grid.providers.neso import NesoSignal
from lightning_green.grid.providers.prometheus import PrometheusSignal
from lightning_green.grid.providers.watttime import WattTimeSignal
from lightning_green.utilities.http.transport import Limits
from tests.helpers.fake_grid import PASSWORD, TOKEN, USER, FakeGrid

NOW = datetime(2026, 1, 15, 10, 20, tzinfo=timezone.utc)
FAST = Limits(connect=0.5, read=0.25, total=0.3, attempts=2, wait=0.001, patience=0.05)

PROVIDERS = {
    "em": lambda grid: ElectricityMapsSignal("DE", url=grid.url("em")),
    "watttime": lambda grid: WattTimeSignal("CAISO_NORTH", url=grid.url("watttime")),
    "neso": lambda grid: NesoSignal(region=13, url=grid.url("neso")),
    "charts": lambda grid: EnergyChartsSignal("DE", url=grid.url("charts")),
    "eds": lambda grid: EnergiDataServiceSignal("DK1", url=grid.url("eds")),
    "sdk": lambda grid: CarbonAwareSdkSignal("westeurope", "average/lifecycle", grid.url("sdk")),
    "json": lambda grid: HttpJsonSignal(
        grid.url("json") + "/co2",
        zone="DE",
        value="now.g",
        time="now.t",
        forecast="next",
        forecast_value="g",
        forecast_time="t",
        zone_field="zone",
    ),
    "prometheus": lambda grid: PrometheusSignal(grid.url("prometheus"), "grid_intensity", zone="DE"),
}


@pytest.fixture
def service_environment(monkeypatch, tmp_path):
    """The credentials of the fake services, an empty cache and no proxy."""
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ELECTRICITYMAPS_API_TOKEN", TOKEN)
    monkeypatch.setenv("WATTTIME_USERNAME", USER)
    monkeypatch.setenv("WATTTIME_PASSWORD", PASSWORD)
    monkeypatch.delenv("LIGHTNING_GREEN_GRID_TOKEN", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def grid(service_environment):
    """The fake services."""
    with FakeGrid(NOW) as server:
        yield server


@pytest.fixture
def build(grid):
    """A function from the name of a provider to its signal, with short time limits."""
    made = []

    def make(name):
        signal = PROVIDERS[name](grid)
        signal.fetcher.limits = FAST
        made.append(signal)
        return signal

    yield make
    for signal in made:
        signal.close()
