"""Splitting an interval among the recorded intensities."""

import pytest

from lightning_green.ledger.intensity_timeline import IntensityInterval, IntensityTimeline, Origin
from lightning_green.ledger.recorded_intensity import Place

ORIGIN = Origin(Place("average/lifecycle", "DE", "trace"), "measured")


def test_shares_of_an_interval_sum_to_one():
    timeline = IntensityTimeline()
    assert timeline.shares(0.0, 1.0) == [(1.0, None, None)]
    for start, end, value in ((0, 10, 1.0), (10, 20, 1.0), (20, 30, None), (30, 30, 9.0), (30, 40, 3.0)):
        timeline.add(IntensityInterval(float(start), float(end), value, ORIGIN))
    assert timeline.shares(5.0, 15.0) == [(1.0, 1.0, ORIGIN)]
    assert timeline.shares(-10.0, 50.0) == [
        (pytest.approx(30 / 60), 1.0, ORIGIN),
        (pytest.approx(10 / 60), None, ORIGIN),
        (pytest.approx(20 / 60), 3.0, ORIGIN),
    ]
    assert timeline.shares(25.0, 25.0) == [(1.0, None, ORIGIN)]
