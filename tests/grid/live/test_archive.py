"""Hourly values that outlive the answers of a service."""

from datetime import timedelta

import pytest

from lightning_green.grid.live.archive import Archive
from lightning_green.grid.live.cache import Cache
from lightning_green.grid.live.query import Point
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import NOW

HOUR = timedelta(hours=1)
START = NOW.replace(minute=0)


@pytest.mark.parametrize("name", ["em", "charts", "watttime"])
def test_hours_of_an_earlier_poll_are_known_to_another_process(grid, build, name):
    build(name).refresh(NOW)
    grid.now = later = NOW + HOUR * 100
    signal = build(name)
    signal.load_cache(later)
    signal.refresh(later)
    for hours in (-20, -10, -1):
        begin = START + HOUR * hours
        assert signal.measured_mean(begin, begin + HOUR) == pytest.approx(solar_day(begin))
        assert signal.mean(begin, begin + HOUR) == pytest.approx(solar_day(begin))
    assert signal.measured_mean(START - HOUR * 40, START - HOUR * 39) is None


def test_archive_is_bounded_and_a_measured_value_replaces_an_estimate(tmp_path):
    cache, archive = Cache(tmp_path), Archive("x")
    archive.add(cache, [Point(START, 100.0, "estimated")], NOW)
    archive.add(cache, [Point(START, 200.0)], NOW)
    assert archive.add(cache, [Point(START, 300.0, "estimated")], NOW) == (Point(START, 200.0),)
    archive.add(cache, [Point(START + HOUR * hours, 1.0) for hours in range(1, 2001)], NOW + HOUR * 2000)
    assert len(archive.read(Cache(tmp_path), NOW + HOUR * 2000)) == 60 * 24
    assert archive.read(Cache(tmp_path), NOW + HOUR * 5000) == ()
