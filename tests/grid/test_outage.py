"""A chain of live sources during an outage of the preferred one."""

from datetime import timedelta

import pytest

from lightning_green.grid.chain import ChainSignal
from tests.helpers.fake_grid import solar_day
from tests.helpers.live_signals import NOW

HOUR = timedelta(hours=1)


def test_last_forecast_is_used_for_four_hours_and_then_the_next_source(grid, build):
    chain = ChainSignal(build("em"), fallback=[build("charts")])
    chain.refresh(NOW)
    grid.faults = {"em": "500"}
    seen = []
    for hours in range(9):
        grid.now = at = NOW + HOUR * hours
        if hours == 7:
            grid.faults = {}
        chain.refresh(at, force=hours == 7)
        reading = chain.intensity(at)
        assert reading.value == pytest.approx(solar_day(at))
        assert chain.forecast(at, HOUR * 12).end >= at + HOUR * 11
        seen.append(reading.source)
    assert seen == ["electricity-maps"] * 5 + ["energy-charts"] * 2 + ["electricity-maps"] * 2
    changes = [message for message in chain.pop_messages() if "changes from" in message]
    assert changes == [
        "The grid source changes from electricity-maps to energy-charts.",
        "The grid source changes from energy-charts to electricity-maps.",
    ]


def test_old_forecast_is_preferred_to_an_earlier_day(grid, build):
    chain = ChainSignal(build("em"), fallback=[build("charts")])
    chain.refresh(NOW)
    grid.faults = {None: "reset"}
    for hours in range(1, 40):
        grid.now = at = NOW + HOUR * hours
        chain.refresh(at)
        reading = chain.intensity(at)
        assert reading.quality == "forecast"
        assert reading.value == pytest.approx(solar_day(at))
    for hours in range(60, 70):  # beyond the horizon: the hours of the day before, marked as estimates
        assert chain.intensity(NOW + HOUR * hours).quality == "estimated"
    assert chain.intensity(NOW + timedelta(days=10)) is None
    assert chain.forecast(NOW + timedelta(days=20), HOUR * 12) is None
