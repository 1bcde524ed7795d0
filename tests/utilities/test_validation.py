import math

import pytest

from lightning_green.utilities.validation import check_choice, check_fraction, check_number, check_positive_int


@pytest.mark.parametrize(
    ("options", "value", "message"),
    [
        ({}, -1, "`x` should be a number of at least 0, got -1."),
        ({"low": 1.0, "above_low": True}, 1, "`x` should be a number above 1, got 1."),
        ({"high": 2.0, "unit": "hours"}, 3, "`x` should be a number of at least 0 and at most 2 hours, got 3."),
        ({"alternative": '"auto"'}, None, '`x` should be a number of at least 0 or "auto", got None.'),
        ({}, True, "`x` should be a number of at least 0, got True."),
        ({}, "3", "`x` should be a number of at least 0, got '3'."),
        ({}, math.nan, "`x` should be a number of at least 0, got nan."),
        ({}, math.inf, "`x` should be a number of at least 0, got inf."),
    ],
)
def test_check_number_raises_with_the_accepted_values_and_the_value(options, value, message):
    with pytest.raises(ValueError, match="`x`") as raised:
        check_number("x", value, **options)
    assert str(raised.value) == message


def test_check_number_returns_a_float():
    assert check_number("x", 3, high=3) == 3.0
    assert isinstance(check_number("x", 3), float)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_check_fraction_raises_outside_its_range(value):
    with pytest.raises(ValueError, match=r"`x` should be a fraction in \[0, 1\], got"):
        check_fraction("x", value)


@pytest.mark.parametrize("value", [True, "0.5", None])
def test_check_fraction_raises_a_type_error_for_other_types(value):
    with pytest.raises(TypeError, match="`x` should be a number, got"):
        check_fraction("x", value)


def test_check_fraction_excludes_one_on_request():
    assert check_fraction("x", 1) == 1.0
    with pytest.raises(ValueError, match=r"`x` should be a fraction in \[0, 1\), got 1"):
        check_fraction("x", 1, below_one=True)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_check_positive_int_raises_for_other_values(value):
    with pytest.raises(ValueError, match="`x` should be an integer of at least 1, got"):
        check_positive_int("x", value)
    assert check_positive_int("x", 1) == 1


def test_check_choice_raises_with_the_choices():
    assert check_choice("x", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match="`x` should be one of 'a', 'b', got 'c'"):
        check_choice("x", "c", ("a", "b"))
