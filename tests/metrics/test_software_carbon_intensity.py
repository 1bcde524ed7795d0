"""Software Carbon Intensity."""

import math

from lightning_green.metrics import SoftwareCarbonIntensity


def test_nan_without_functional_units():
    assert math.isnan(float(SoftwareCarbonIntensity().compute()))
