"""Settings that an actuator offers."""

import pytest

from lightning_green.throttle.settings import FRACTIONS, check_positive, power_settings, steps_below


def values(*arguments):
    return [setting.value for setting in power_settings(*arguments)]


def test_steps_are_descending_fractions_that_the_device_accepts():
    assert steps_below(100.0, 0.0) == [90.0, 80.0, 70.0, 60.0, 50.0]
    assert steps_below(100.0, 60.0, [0.5, 0.9, 0.6]) == [90.0, 60.0]
    assert steps_below(3.0, 0.0, [0.7]) == [2.1]  # without the error of the product


def test_original_limit_comes_first_even_if_no_other_is_accepted():
    assert values(300.0, 300.0, None, FRACTIONS) == [300.0]
    assert values(300.0, 250.0, None, FRACTIONS) == [300.0, 270.0]


def test_requested_limits_replace_the_fractions():
    assert values(300.0, 100.0, [200, 250], FRACTIONS) == [300.0, 250.0, 200.0]


def test_requested_limit_that_is_not_below_the_original_is_not_offered():
    assert values(300.0, 100.0, [300, 400, 99, 100], FRACTIONS) == [300.0, 100.0]


def test_limits_are_named_in_watts():
    assert [setting.name for setting in power_settings(300.0, 100.0, [262.5], ())] == ["300 W", "262.5 W"]


def test_numbers_above_zero_are_returned_as_floats():
    assert check_positive("watts", None) is None
    assert check_positive("watts", (200, 0.5)) == [200.0, 0.5]


@pytest.mark.parametrize("given", [[], [200, 0], [-1.0], [float("nan")], "200", b"2"])
def test_other_values_raise_with_their_name(given):
    with pytest.raises(ValueError, match="`watts` should be a list of numbers above 0, got"):
        check_positive("watts", given)
