"""The choice of a source by ``grid="auto"``."""

import pytest

from lightning_green.grid.auto import auto_grid
from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.providers.annual import AnnualMean
from lightning_green.grid.registry import build_grid
from lightning_green.grid.spec import grid_from_spec

TOKEN = {"ELECTRICITYMAPS_API_TOKEN": "t"}
WATTTIME = {"WATTTIME_USERNAME": "u", "WATTTIME_PASSWORD": "p"}


def sources(signal):
    parts = signal.signals if isinstance(signal, ChainSignal) else [signal]
    return [part.source for part in parts]


# zone, environment, sources in order, reason in the start-up line
CHOICES = [
    ("DE", {}, ["energy-charts", "annual mean DEU"], "is not set, and energy-charts covers DE without a key"),
    ("deu", {}, ["energy-charts", "annual mean DEU"], "energy-charts covers DE"),
    ("GB", {}, ["neso"], "NESO covers Great Britain without a key"),
    ("UK", {}, ["neso"], "NESO covers Great Britain"),
    ("GB-NIR", {}, ["annual mean GBR"], "no service covers GB-NIR without a key"),
    ("DK1", {}, ["energi-data-service"], "Energi Data Service covers Denmark"),
    ("DK-DK2", {}, ["energi-data-service"], "Energi Data Service covers Denmark"),
    ("DK", {}, ["energy-charts", "annual mean DNK"], "energy-charts covers DK"),
    ("SE-SE3", {}, ["annual mean SWE"], "no service covers SE-SE3 without a key"),
    ("JP-TK", {}, ["annual mean JPN"], "so a run does not wait"),
    ("US-CAL-CISO", {}, ["annual mean USA"], "ELECTRICITYMAPS_API_TOKEN is not set"),
    ("US-CAL-CISO", WATTTIME, ["annual mean USA"], "WattTime accepts only its own regions and coordinates"),
    ("DE", TOKEN, ["electricity-maps", "energy-charts", "annual mean DEU"], "ELECTRICITYMAPS_API_TOKEN is set"),
    ("GB", TOKEN, ["electricity-maps", "annual mean GBR"], "ELECTRICITYMAPS_API_TOKEN is set"),
    ("52.5,13.4", TOKEN, ["electricity-maps"], "ELECTRICITYMAPS_API_TOKEN is set"),
    ("52.5,13.4", TOKEN | WATTTIME, ["electricity-maps"], "ELECTRICITYMAPS_API_TOKEN is set"),
    ("38.5,-121.5", WATTTIME, ["watttime"], "WATTTIME_USERNAME is set; a marginal signal, for planning"),
    ("CAISO_NORTH", {}, ["watttime"], "CAISO_NORTH is a region of WattTime"),
    ("CAISO_NORTH", TOKEN | WATTTIME, ["watttime"], "CAISO_NORTH is a region of WattTime"),
]


@pytest.mark.parametrize(("zone", "environ", "expected", "reason"), CHOICES)
def test_source_and_reason(zone, environ, expected, reason):
    signal = auto_grid(zone, environ)
    found = sources(signal)
    assert len(found) == len(expected)
    assert all(name.startswith(start) for name, start in zip(found, expected, strict=True)), found
    assert reason in signal.describe()
    assert signal.zone is not None


def test_zone_comes_from_the_argument_or_the_environment(monkeypatch):
    assert auto_grid(None, {"LIGHTNING_GREEN_ZONE": "FR"}).zone == "FR"
    assert auto_grid("DE", {"LIGHTNING_GREEN_ZONE": "FR"}).zone == "DE"
    with pytest.warns(UserWarning, match='pass grid="auto:DE" .or set LIGHTNING_GREEN_ZONE'):
        assert auto_grid(None, {}) is None
    monkeypatch.delenv("LIGHTNING_GREEN_ZONE", raising=False)
    monkeypatch.delenv("ELECTRICITYMAPS_API_TOKEN", raising=False)
    assert sources(build_grid("auto:DE")) == sources(build_grid("auto", zone="DE"))
    with pytest.warns(UserWarning, match="never guessed"):
        assert build_grid("auto") is None


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("52.5,13.4", "WATTTIME_USERNAME .* or pass their country"),
        ("AQ", "finds no source for 'AQ'"),
        ("ZZ", "got 'ZZ'"),
        ("QQQ", "got 'QQQ'"),
        ("91,0", "latitude,longitude in degrees"),
        ("0,181", "latitude,longitude in degrees"),
        ("Germany!", "should be an Electricity Maps zone"),
    ],
)
def test_place_without_a_source_is_refused(zone, message):
    with pytest.raises(ValueError, match=message):
        auto_grid(zone, {})


def test_empty_token_counts_as_missing():
    assert sources(auto_grid("JP", {"ELECTRICITYMAPS_API_TOKEN": " "})) == sources(auto_grid("JP", {}))


def test_spec_builds_the_same_chain():
    signal = auto_grid("DE", TOKEN)
    copy = grid_from_spec(signal.spec())
    assert sources(copy) == sources(signal)
    assert copy.spec() == signal.spec()
    assert "'t'" not in str(signal.spec())


def test_annual_mean_is_the_last_resort():
    signal = auto_grid("JP", {})
    assert isinstance(signal, AnnualMean)
    assert "static" in signal.describe()
