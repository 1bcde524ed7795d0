"""Zones, countries and coordinates."""

import pytest

from lightning_green.grid.registry import build_grid
from lightning_green.grid.zones import parse_place


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
        ("ES-CN-TE", "ES-CN-TE", "ES"),
        ("XK", "XK", "XK"),
    ],
)
def test_place_of_a_zone_or_country(zone, code, country):
    place = parse_place(zone)
    assert (place.code, place.country, str(place)) == (code, country, code)


def test_place_of_coordinates():
    place = parse_place(" -33.87 , 151.2 ")
    assert (place.latitude, place.longitude, place.code, place.country) == (-33.87, 151.2, None, None)
    assert str(place) == "-33.87,151.2"
    for bad in ("", "D", "52.5;13.4", "DE/FR"):
        with pytest.raises(ValueError, match="`zone` should be"):
            parse_place(bad)
    with pytest.raises(TypeError, match="should be a string"):
        parse_place(52.5)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("annual:DE-XX", "got 'DE-XX'. Did you mean DE?"),
        ("auto:DE-FOO", "got 'DE-FOO'. Did you mean DE?"),
        ("typical:CA-TORONTO", "got 'CA-TORONTO'. Did you mean CA-ON"),
        ("annual:IN-MUMBAI", "The zones of IN are IN, IN-AN, IN-DL"),
        ("electricity-maps:XX", "got 'XX'"),
        ("electricity-maps:US-CAL-CIS", "Did you mean US-CAL-CISO"),
        ("electricity-maps:CA", "`zone` should be a part of CA, which Electricity Maps divides into CA-AB, CA-BC"),
        ("energy-charts:XX", "got 'XX'"),
        ("energy-charts:US", "that energy-charts covers (AL, AT, BA"),
        ("energy-charts:SE-SE3", "that energy-charts covers"),
        ("watttime:CAISO_NORT", "got 'CAISO_NORT'. Did you mean CAISO_NORTH?"),
        ("auto:CAISO_NORT", "Did you mean CAISO_NORTH?"),
        ("watttime:us-east-1", "WattTime does not use the names of cloud regions"),
        ("auto:Germany", "Did you mean DE?"),
        ("annual:Grmany", "Did you mean DE?"),
        ("auto:SE3", "SE-SE3"),
    ],
)
def test_typo_is_refused_with_the_nearest_names(grid, message):
    with pytest.raises(ValueError, match=r"`zone` should be a") as caught:
        build_grid(grid)
    assert message in str(caught.value)


def test_region_of_watttime_that_is_not_listed_is_left_to_the_service():
    assert build_grid("watttime:NEM_NSW").region == "NEM_NSW"
    assert build_grid("watttime:caiso_north").region == "CAISO_NORTH"
