"""Regions of AWS, Google Cloud and Azure, and the zone of Electricity Maps that their data centers are in.

The table contains regions whose place and grid operator are public. For a region on the border of several grids,
``SEVERAL_GRIDS`` contains the candidates, and the user chooses.
"""

from __future__ import annotations

_AWS = {
    "AE": "me-central-1",
    "AU-NSW": "ap-southeast-2",
    "AU-VIC": "ap-southeast-4",
    "BH": "me-south-1",
    "BR-CS": "sa-east-1",
    "CA-AB": "ca-west-1",
    "CA-QC": "ca-central-1",
    "CH": "eu-central-2",
    "CN": "cn-north-1 cn-northwest-1",
    "DE": "eu-central-1",
    "ES": "eu-south-2",
    "FR": "eu-west-3",
    "GB": "eu-west-2",
    "HK": "ap-east-1",
    "ID": "ap-southeast-3",
    "IE": "eu-west-1",
    "IL": "il-central-1",
    "IN-SO": "ap-south-2",
    "IN-WE": "ap-south-1",
    "IT-NO": "eu-south-1",
    "JP-KN": "ap-northeast-3",
    "JP-TK": "ap-northeast-1",
    "KR": "ap-northeast-2",
    "MX": "mx-central-1",
    "MY-WM": "ap-southeast-5",
    "SE-SE3": "eu-north-1",
    "SG": "ap-southeast-1",
    "TH": "ap-southeast-7",
    "TW": "ap-east-2",
    "US-CAL-CISO": "us-west-1",
    "US-MIDA-PJM": "us-east-1 us-east-2 us-gov-east-1",
    "ZA": "af-south-1",
}
_GOOGLE = {
    "AU-NSW": "australia-southeast1",
    "AU-VIC": "australia-southeast2",
    "BE": "europe-west1",
    "BR-CS": "southamerica-east1",
    "CA-ON": "northamerica-northeast2",
    "CA-QC": "northamerica-northeast1",
    "CH": "europe-west6",
    "CL-SEN": "southamerica-west1",
    "DE": "europe-west3 europe-west10",
    "ES": "europe-southwest1",
    "FI": "europe-north1",
    "FR": "europe-west9",
    "GB": "europe-west2",
    "HK": "asia-east2",
    "ID": "asia-southeast2",
    "IL": "me-west1",
    "IN-NO": "asia-south2",
    "IN-WE": "asia-south1",
    "IT-NO": "europe-west8 europe-west12",
    "JP-KN": "asia-northeast2",
    "JP-TK": "asia-northeast1",
    "KR": "asia-northeast3",
    "MX": "northamerica-south1",
    "NL": "europe-west4",
    "PL": "europe-central2",
    "QA": "me-central1",
    "SA": "me-central2",
    "SE-SE3": "europe-north2",
    "SG": "asia-southeast1",
    "TW": "asia-east1",
    "US-CAR-SC": "us-east1",
    "US-MIDA-PJM": "us-east4 us-east5",
    "US-MIDW-MISO": "us-central1",
    "US-NW-BPAT": "us-west1",
    "US-NW-NEVP": "us-west4",
    "US-NW-PACE": "us-west3",
    "US-TEX-ERCO": "us-south1",
    "ZA": "africa-south1",
}
_AZURE = {
    "AE": "uaecentral uaenorth",
    "AT": "austriaeast",
    "AU-NSW": "australiacentral australiaeast",
    "AU-VIC": "australiasoutheast",
    "BE": "belgiumcentral",
    "BR-CS": "brazilsouth brazilsoutheast",
    "CA-ON": "canadacentral",
    "CA-QC": "canadaeast",
    "CH": "switzerlandnorth switzerlandwest",
    "CL-SEN": "chilecentral",
    "CN": "chinaeast chinaeast2 chinanorth chinanorth2 chinanorth3",
    "DE": "germanynorth germanywestcentral",
    "ES": "spaincentral",
    "FR": "francecentral francesouth",
    "GB": "uksouth ukwest",
    "HK": "eastasia",
    "ID": "indonesiacentral",
    "IE": "northeurope",
    "IL": "israelcentral",
    "IN-SO": "southindia",
    "IN-WE": "centralindia westindia jioindiawest",
    "IT-NO": "italynorth",
    "JP-KN": "japanwest",
    "JP-TK": "japaneast",
    "KR": "koreacentral koreasouth",
    "MX": "mexicocentral",
    "MY-WM": "malaysiawest",
    "NL": "westeurope",
    "NO-NO1": "norwayeast",
    "NO-NO2": "norwaywest",
    "NZ": "newzealandnorth",
    "PL": "polandcentral",
    "QA": "qatarcentral",
    "SE-SE3": "swedencentral",
    "SG": "southeastasia",
    "US-CAL-CISO": "westus",
    "US-MIDA-PJM": "eastus eastus2 northcentralus",
    "US-MIDW-MISO": "centralus",
    "US-NW-GCPD": "westus2",
    "US-TEX-ERCO": "southcentralus",
    "ZA": "southafricanorth southafricawest",
}

CLOUD_REGIONS = {
    region: zone for table in (_AWS, _GOOGLE, _AZURE) for zone, regions in table.items() for region in regions.split()
}
"""Zone of Electricity Maps by region. No two providers use the same name."""

SEVERAL_GRIDS = {
    "us-gov-west-1": ("US-NW-BPAT", "US-NW-PACW"),
    "us-west-2": ("US-NW-BPAT", "US-NW-PACW"),
    "us-west2": ("US-CAL-CISO", "US-CAL-LDWP"),
    "westus3": ("US-SW-AZPS", "US-SW-SRP"),
}
"""Regions whose data centers may be on any of these grids."""


def cloud_zone(region: str) -> str | None:
    """Return the zone of Electricity Maps that a cloud region is in, or None if ``region`` is not in the table.

    Args:
        region: Name that AWS (``"eu-central-1"``), Google Cloud (``"europe-west3"``) or Azure (``"germanynorth"``)
            uses, in upper or lower case.

    Raises:
        ValueError: If the region may be on several grids. The message names them.

    Examples:
        >>> cloud_zone("us-east-1"), cloud_zone("us-central1"), cloud_zone("westeurope")
        ('US-MIDA-PJM', 'US-MIDW-MISO', 'NL')

    """
    name = region.strip().casefold()
    if name in SEVERAL_GRIDS:
        zones = " or ".join(SEVERAL_GRIDS[name])
        raise ValueError(f"The cloud region {name} may be on several grids: pass the zone of yours, {zones}.")
    return CLOUD_REGIONS.get(name)
