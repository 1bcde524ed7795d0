"""Statistics of a measurement."""

import pytest

from lightning_green.throttle.measurement import half_width


def test_half_width_uses_student_t_quantile():
    values = [9.0, 10.0, 11.0, 10.0, 10.0]  # t(0.975, 4) = 2.7764
    assert half_width(values, 0.95) == pytest.approx(2.7764 * 0.5**0.5 / 5**0.5, rel=1e-3)
    assert half_width([1.0], 0.95) == float("inf")
