"""The forms of the ``grid`` argument."""

from datetime import datetime, timezone

import pytest

from lightning_green import EmissionsTracker
from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.grid.providers.trace import TraceSignal
from lightning_green.grid.providers.typical_day import TypicalDay
from lightning_green.grid.registry import SOURCES, build_grid
from tests.helpers.distributions import installed_distribution

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def test_forms_of_the_grid_argument(tmp_path):
    trace = tmp_path / "de.csv"
    trace.write_text("datetime,carbon_intensity\n2026-01-01T00:00:00Z,300\n")
    signal = ConstantSignal(1.0)
    assert build_grid(None) is None
    assert build_grid(signal) is signal
    assert build_grid(381, zone="DE").zone == "DE"
    assert build_grid("381.5").intensity(AT).value == 381.5
    assert isinstance(build_grid(str(trace), zone="DE"), TraceSignal)
    assert isinstance(build_grid("typical:DE"), TypicalDay)
    assert build_grid("typical", zone="FR").figure.country == "FRA"
    assert isinstance(build_grid(lambda at: 3.0, zone="DE"), FunctionSignal)
    spec = {"class_path": "lightning_green.grid.ConstantSignal", "init_args": {"intensity": 7.0}}
    assert build_grid(spec).intensity(AT).value == 7.0


@pytest.mark.parametrize("grid", ["", "green", "http", "electricity"])
def test_unknown_string_lists_the_choices(grid):
    with pytest.raises(ValueError, match=r"`grid` should be a GridSignal, a number"):
        build_grid(grid)


@pytest.mark.parametrize("grid", [True, object(), {1.0}, ConstantSignal])
def test_unknown_type_lists_the_choices(grid):
    with pytest.raises(TypeError, match=r"`grid` should be a GridSignal, a number"):
        build_grid(grid)


@pytest.mark.parametrize(
    "grid",
    [
        "typical:DE",
        "electricity-maps:DE",
        "auto:DE",
        ConstantSignal(4.0, "DE"),
        TypicalDay("DE").spec(),
        ["typical:DE", "energy-charts:DE"],
    ],
)
def test_zone_that_contradicts_the_grid_is_refused(grid):
    with pytest.raises(ValueError, match="`zone` should be omitted or equal the zone 'DE' of `grid`, got 'FR'"):
        build_grid(grid, zone="FR")
    with pytest.raises(ValueError, match="`zone` should be omitted"):
        EmissionsTracker(grid=grid, zone="FR", meter=None)
    build_grid(grid, zone="de ")


@pytest.mark.parametrize("grid", [["typical:DE", 381], [ConstantSignal(4.0), "typical:DE"], ConstantSignal(4.0), "381"])
def test_zone_applies_to_parts_without_a_zone(grid):
    assert build_grid(grid, zone="FR") is not None


def test_source_of_another_package_may_have_a_default_zone(tmp_path, monkeypatch):
    module = """
from lightning_green.grid import ConstantSignal

class IslandSignal(ConstantSignal):
    @classmethod
    def from_zone(cls, zone):
        return cls(5.0, zone or "IS")
"""
    points = {"island": "island_signal:IslandSignal"}
    with installed_distribution(tmp_path, monkeypatch, SOURCES, points, {"island_signal": module}):
        assert build_grid("island").zone == "IS"
        assert build_grid("island:GL").zone == "GL"


@pytest.mark.parametrize("grid", [{"class_path": "x.Y", "init_args": None}, {"class_path": "x.Y", "init_args": [1]}])
def test_malformed_spec_with_a_zone_is_refused(grid):
    with pytest.raises(ValueError, match="should contain `class_path`"):
        build_grid(grid, zone="DE")
