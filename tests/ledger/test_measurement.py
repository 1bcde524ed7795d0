"""Energy and intensity of an event as JSON."""

import json

import pytest

from lightning_green.energy.meter import Energy
from lightning_green.ledger.measurement import FIELDS, Intensity, Measurement
from tests.helpers.full_events import MEASURED


def test_measurement_is_read_as_it_was_written():
    assert Measurement.from_json(json.loads(json.dumps(MEASURED.to_json()))) == MEASURED


def test_fields_are_those_that_are_written():
    assert set(FIELDS) == set(MEASURED.to_json())


def test_total_is_the_sum_over_components():
    assert MEASURED.total_joules == 4.5
    assert Measurement({}).total_joules == 0.0


def test_missing_numbers_mean_full_power_without_losses():
    record = {"joules": {"other": {"value": 3, "quality": "measured"}}}
    assert Measurement.from_json(record) == Measurement(
        {"other": Energy(3.0, "measured")}, None, pue=1.0, power=1.0, speed=1.0, data_wait_s=0.0
    )


def test_unknown_quality_raises():
    with pytest.raises(ValueError, match="unknown quality 'guessed'"):
        Measurement.from_json({"joules": {"other": {"value": 3.0, "quality": "guessed"}}})


def test_intensity_needs_a_value_and_a_kind_only():
    intensity = Intensity.from_json({"value": 200, "kind": "average/direct"})
    assert intensity == Intensity(200.0, "average/direct", source="", zone=None, now=None)
