"""Zones, countries and coordinates."""

import pytest

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
