"""The outlook and the climatology of an observation."""

import numpy as np
import pytest

from lightning_green.backtest.observation import Observation
from lightning_green.backtest.scenario import DAY, Scenario

MIDNIGHT = 480_000
"""Hours since 1970 at the start of a day (UTC)."""


def observation(hour=MIDNIGHT, history=(), issued=(), forecasts=(), deadline=24.0, **scenario):
    return Observation(
        hour=hour,
        history=np.array(history, dtype=np.float64),
        known_until=hour,
        issued=np.array(issued, dtype=np.int64),
        forecasts=np.array(forecasts, dtype=np.float64),
        remaining_work=4.0,
        hours_to_deadline=deadline,
        state="run",
        scenario=Scenario(**scenario),
    )


def test_outlook_is_the_newest_forecast_from_now_to_the_deadline():
    seen = observation(
        issued=[MIDNIGHT - 30, MIDNIGHT - 2], forecasts=[np.full(96, 7.0), np.arange(96.0)], deadline=5.5
    )
    assert seen.outlook().tolist() == [2, 3, 4, 5, 6, 7]


def test_outlook_without_a_forecast_is_the_climatology():
    seen = observation(hour=MIDNIGHT + 6, history=np.arange(48) % DAY, deadline=20)
    # The last known value is that of hour 5, so value v is that of hour (v + 6) % 24.
    assert seen.outlook().tolist() == [(hour - 6) % DAY for hour in range(6, 26)]


def test_hours_after_the_forecast_are_the_climatology():
    seen = observation(history=np.tile(np.arange(24.0), 3), issued=[MIDNIGHT], forecasts=[[500.0, 501.0]], deadline=4)
    assert seen.outlook().tolist() == [500, 501, 2, 3]


def test_hours_after_the_forecast_repeat_its_last_day_without_a_history():
    values = np.arange(36.0)
    seen = observation(hour=MIDNIGHT + 5, issued=[MIDNIGHT], forecasts=[values], deadline=60)
    assert seen.outlook().tolist() == [*values[5:], *values[12:], *values[12:17]]


def test_forecast_shorter_than_a_day_is_filled_with_its_mean_without_a_history():
    seen = observation(issued=[MIDNIGHT], forecasts=[[100.0, 300.0]], deadline=26)
    assert seen.outlook().tolist() == [100, 300, *[200] * 22, 100, 300]


def test_outlook_without_any_data_is_empty():
    assert observation().outlook().tolist() == []
    assert observation().climatology() is None


def test_climatology_is_the_mean_of_each_hour_over_seven_days():
    days = np.repeat(np.arange(10.0), DAY)
    assert observation(history=days).climatology() == pytest.approx(np.full(24, np.mean([3, 4, 5, 6, 7, 8, 9])))
    assert observation(hour=MIDNIGHT + 3, history=[10.0, 20.0, 30.0]).climatology()[:4].tolist() == [10, 20, 30, 20]


@pytest.mark.parametrize(
    ("pauses", "pause"), [({"exit", "hold"}, "exit"), ({"hold"}, "hold"), ({"exit"}, "exit"), (set(), None)]
)
def test_single_pause_is_an_exit_if_allowed(pauses, pause):
    assert observation(pauses=frozenset(pauses)).pause == pause
