import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_green.compression import (
    Moment,
    Ramp,
    Span,
    sparsity_at,
)


@pytest.mark.parametrize("shape", ["constant", "linear", "cubic", "one_cycle"])
def test_schedule_rises_monotonically_to_its_target(shape):
    values = [sparsity_at(u / 20, 0.8, shape, initial=0.1) for u in range(21)]
    assert values == sorted(values)
    assert values[-1] == 0.8
    assert values[0] == pytest.approx({"constant": 0.8, "one_cycle": 0.105}.get(shape, 0.1), abs=0.01)


def test_cubic_schedule_matches_zhu_and_gupta_equation_1():
    assert sparsity_at(0.3, 0.9, "cubic", 0.2) == pytest.approx(0.9 + (0.2 - 0.9) * (1 - 0.3) ** 3)


@pytest.mark.parametrize(("text", "step"), [(0.25, 25), ("3ep", 30), (1.0, 100), ("0ep", 0)])
def test_moment_is_a_fraction_or_an_epoch(text, step):
    assert Moment.parse("begin", text).step(100, 10) == step


@pytest.mark.parametrize("bad", ["3", "ep", -0.1, 1.5, math.nan, "half"])
def test_invalid_moment_raises_with_the_argument_name(bad):
    with pytest.raises(ValueError, match="`begin` should be"):
        Moment.parse("begin", bad)


def test_ramp_is_constant_outside_its_range():
    ramp = Ramp(2.0, 4.0, 0.25, 0.75)
    assert [ramp(u) for u in (0, 0.25, 0.5, 0.75, 1)] == [2, 2, 3, 4, 4]
    with pytest.raises(ValueError, match="`end` should not come before `begin`"):
        Ramp(0, 1, 0.5, 0.2)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20), st.integers(0, 120))
def test_latest_returns_the_last_scheduled_step(begin, length, every, step):
    span = Span(begin, begin + length, every)
    latest = span.latest(step)
    moments = [*range(begin, begin + length, every), begin + length]
    assert latest == max([m for m in moments if m <= step], default=-1)
