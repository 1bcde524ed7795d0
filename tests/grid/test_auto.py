import pytest

from lightning_green.grid.auto import auto_grid
from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.providers.annual import AnnualMean
from lightning_green.grid.registry import build_grid
from lightning_green.grid.spec import grid_from_spec
from lightning_green.grid.zones import parse_place

TOKEN = {"ELECTRICITYMAPS_API_TOKEN": "t"}
WATTTIME = {"WATTTIME_USERNAME": "u", "WATTTIME_PASSWORD": "p"}


def sources(signal):
    parts = signal.signals if isinstance(signal, ChainSignal) else [signal]
    return [part.source for part in parts]


# zone, environment -> the sources in order, and what the start-up line says about why
CHOICES = [
    ("DE", {}, ["energy-charts", "annual mean DEU"], "is not set, and energy-charts serves DE without a key"),
    ("deu", {}, ["energy-charts", "annual mean DEU"], "energy-charts serves DE"),
    ("GB", {}, ["neso"], "NESO serves Great Britain without a key"),
    ("UK", {}, ["neso"], "NESO serves Great Britain"),
    ("GB-NIR", {}, ["annual mean GBR"], "no service answers for GB-NIR without a key"),
    ("DK1", {}, ["energi-data-service"], "Energi Data Service serves Denmark"),
    ("DK-DK2", {}, ["energi-data-service"], "Energi Data Service serves Denmark"),
    ("DK", {}, ["energy-charts", "annual mean DNK"], "energy-charts serves DK"),
    ("SE-SE3", {}, ["annual mean SWE"], "no service answers for SE-SE3 without a key"),
    ("JP-TK", {}, ["annual mean JPN"], "so nothing waits"),
    ("US-CAL-CISO", {}, ["annual mean USA"], "ELECTRICITYMAPS_API_TOKEN is not set"),
    ("US-CAL-CISO", WATTTIME, ["annual mean USA"], "WattTime takes its own regions and coordinates alone"),
    ("DE", TOKEN, ["electricity-maps", "energy-charts", "annual mean DEU"], "ELECTRICITYMAPS_API_TOKEN is set"),
    ("GB", TOKEN, ["electricity-maps", "annual mean GBR"], "ELECTRICITYMAPS_API_TOKEN is set"),
    ("52.5,13.4", TOKEN, ["electricity-maps"], "ELECTRICITYMAPS_API_TOKEN is set"),
    ("52.5,13.4", TOKEN | WATTTIME, ["electricity-maps"], "ELECTRICITYMAPS_API_TOKEN is set"),
    ("38.5,-121.5", WATTTIME, ["watttime"], "WATTTIME_USERNAME is set; a marginal signal, which plans"),
    ("CAISO_NORTH", {}, ["watttime"], "CAISO_NORTH is a region of WattTime"),
    ("CAISO_NORTH", TOKEN | WATTTIME, ["watttime"], "CAISO_NORTH is a region of WattTime"),
]


@pytest.mark.parametrize(("zone", "environ", "expected", "why"), CHOICES)
def test_which_source_and_why(zone, environ, expected, why):
    signal = auto_grid(zone, environ)
    found = sources(signal)
    assert len(found) == len(expected)
    assert all(name.startswith(start) for name, start in zip(found, expected, strict=True)), found
    assert why in signal.describe()
    assert signal.zone is not None


def test_the_zone_from_the_environment_and_none_at_all(monkeypatch):
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
        ("52.5,13.4", "WATTTIME_USERNAME .* or pass the country that they lie in"),
        ("ZZ", "finds no source for 'ZZ'"),
        ("QQQ", "finds no source for 'QQQ'"),
        ("91,0", "latitude,longitude in degrees"),
        ("0,181", "latitude,longitude in degrees"),
        ("Germany!", "should be an Electricity Maps zone"),
    ],
)
def test_a_place_that_nobody_serves(zone, message):
    with pytest.raises(ValueError, match=message):
        auto_grid(zone, {})


def test_an_empty_token_is_none():
    assert sources(auto_grid("JP", {"ELECTRICITYMAPS_API_TOKEN": " "})) == sources(auto_grid("JP", {}))


def test_the_supervisor_builds_the_same_chain():
    signal = auto_grid("DE", TOKEN)
    copy = grid_from_spec(signal.spec())
    assert sources(copy) == sources(signal)
    assert copy.spec() == signal.spec()
    assert "'t'" not in str(signal.spec())


def test_the_annual_mean_means_run_now():
    signal = auto_grid("JP", {})
    assert isinstance(signal, AnnualMean)
    assert "static" in signal.describe()


@pytest.mark.parametrize(
    ("zone", "code", "country"),
    [
        ("de", "DE", "DE"),
        ("DEU", "DE", "DE"),
        (" us-cal-ciso ", "US-CAL-CISO", "US"),
        ("uk", "GB", "GB"),
        ("EL", "GR", "GR"),
        ("DK1", "DK-DK1", "DK"),
        ("NO-NO2", "NO-NO2", "NO"),
    ],
)
def test_places(zone, code, country):
    place = parse_place(zone)
    assert (place.code, place.country, str(place)) == (code, country, code)


def test_coordinates():
    place = parse_place(" -33.87 , 151.2 ")
    assert (place.latitude, place.longitude, place.code, place.country) == (-33.87, 151.2, None, None)
    assert str(place) == "-33.87,151.2"
    for bad in ("", "D", "52.5;13.4", "DE/FR"):
        with pytest.raises(ValueError, match="`zone` should be"):
            parse_place(bad)
    with pytest.raises(TypeError, match="should be a string"):
        parse_place(52.5)
