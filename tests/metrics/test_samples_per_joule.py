"""Energy efficiency."""

import math

from lightning_green.metrics import SamplesPerJoule


def test_nan_without_energy():
    assert math.isnan(float(SamplesPerJoule().compute()))
