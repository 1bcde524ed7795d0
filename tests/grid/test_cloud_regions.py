"""Regions of cloud providers as zones."""

import pytest

from lightning_green.grid.cloud_regions import CLOUD_REGIONS, SEVERAL_GRIDS, cloud_zone
from lightning_green.grid.registry import build_grid
from lightning_green.grid.zone_names import ZONES
from lightning_green.grid.zones import parse_place


@pytest.mark.parametrize(
    ("region", "zone", "country"),
    [
        ("us-east-1", "US-MIDA-PJM", "US"),
        ("us-central1", "US-MIDW-MISO", "US"),
        ("me-central-1", "AE", "AE"),
        ("me-central1", "QA", "QA"),
        ("sa-east-1", "BR-CS", "BR"),
        ("af-south-1", "ZA", "ZA"),
        ("il-central-1", "IL", "IL"),
        ("ca-central-1", "CA-QC", "CA"),
        ("EU-Central-1", "DE", "DE"),
        ("westeurope", "NL", "NL"),
        ("northeurope", "IE", "IE"),
        ("eastus", "US-MIDA-PJM", "US"),
    ],
)
def test_region_is_the_zone_of_its_grid(region, zone, country):
    place = parse_place(region)
    assert (place.code, place.country) == (zone, country)


def test_every_region_has_a_known_zone():
    zones = {zone for candidates in SEVERAL_GRIDS.values() for zone in candidates}
    assert zones | set(CLOUD_REGIONS.values()) <= ZONES
    assert not set(CLOUD_REGIONS) & set(SEVERAL_GRIDS)
    assert not {name.upper() for name in CLOUD_REGIONS} & ZONES


def test_signal_of_a_region_has_the_zone_of_its_grid():
    assert build_grid("electricity-maps:us-east-1").zone == "US-MIDA-PJM"
    assert build_grid("annual:me-central-1").figure.country == "ARE"
    assert build_grid("typical:sa-east-1").zone == "BR-CS"
    assert build_grid("energy-charts:eu-central-1").zone == "DE"


def test_region_on_several_grids_is_refused_with_their_zones():
    with pytest.raises(ValueError, match="several grids: pass the zone of yours, US-NW-BPAT or US-NW-PACW"):
        cloud_zone("us-west-2")


@pytest.mark.parametrize(
    ("region", "nearest"), [("us-east-9", "us-east-1"), ("us-east-1a", "us-east-1"), ("eu-centrl-1", "eu-central-1")]
)
def test_unknown_region_is_refused_with_the_nearest_names(region, nearest):
    with pytest.raises(ValueError, match=f"got '{region}'. Did you mean .*{nearest}"):
        parse_place(region)
