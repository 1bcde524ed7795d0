"""Carbon intensity of the grid: the signal contract, the registry of sources, and series."""

from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.errors import InventedDataError, NoDataError, WrongUnitError, WrongZoneError
from lightning_green.grid.live import LiveSignal
from lightning_green.grid.providers.annual import AnnualMean
from lightning_green.grid.providers.carbon_aware_sdk import CarbonAwareSdkSignal
from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
from lightning_green.grid.providers.energi_data_service import EnergiDataServiceSignal
from lightning_green.grid.providers.energy_charts import EnergyChartsSignal
from lightning_green.grid.providers.file import FileSignal
from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.grid.providers.http_json import HttpJsonSignal
from lightning_green.grid.providers.neso import NesoSignal
from lightning_green.grid.providers.prometheus import PrometheusSignal
from lightning_green.grid.providers.trace import TraceSignal
from lightning_green.grid.providers.typical_day import TypicalDay
from lightning_green.grid.providers.watttime import WattTimeSignal
from lightning_green.grid.registry import GridLike, build_grid
from lightning_green.grid.signal import GridSignal, Reading, SignalKind
from lightning_green.grid.spec import grid_from_spec

__all__ = [
    "AnnualMean",
    "CarbonAwareSdkSignal",
    "ChainSignal",
    "ConstantSignal",
    "ElectricityMapsSignal",
    "EnergiDataServiceSignal",
    "EnergyChartsSignal",
    "FileSignal",
    "FunctionSignal",
    "GridLike",
    "GridSignal",
    "HttpJsonSignal",
    "InventedDataError",
    "LiveSignal",
    "NesoSignal",
    "NoDataError",
    "PrometheusSignal",
    "Reading",
    "SignalKind",
    "TraceSignal",
    "TypicalDay",
    "WattTimeSignal",
    "WrongUnitError",
    "WrongZoneError",
    "build_grid",
    "grid_from_spec",
]
