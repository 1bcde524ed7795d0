"""Validation of forecasts."""

import math
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.planning import Forecast

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
TIMES = [START + timedelta(hours=h) for h in range(4)]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"values": [1, 2, 3]}, "`values` should have one entry for each of `times`"),
        ({"values": [1, math.nan, 3, 4]}, "`values` should be finite and not negative, got nan at position 1"),
        ({"values": [1, 2, 3, -4]}, "got -4.0 at position 3"),
        ({"spread": [1, 2, 3, math.inf]}, "`spread`"),
        ({"times": [t.replace(tzinfo=None) for t in TIMES]}, "`times` should have a time zone, got the naive"),
        ({"times": TIMES[::-1]}, "`times` should be in ascending order"),
        ({"times": [TIMES[0], TIMES[0], *TIMES[2:]]}, "`times` should be in ascending order"),
        ({"times": [*TIMES[:3], START + timedelta(hours=5)]}, "`times` should have no gap, got 3 h"),
        ({"kind": "average"}, "`kind` should be one of average/lifecycle"),
        ({"issued_at": datetime(2024, 5, 1)}, "`issued_at`"),
        ({"history_times": TIMES, "history_values": [1, 2]}, "`history_values`"),
        ({"history_times": TIMES}, "`history_values`"),
        ({"history_times": TIMES, "history_values": [1, 2, math.nan, 4]}, "`history_values`"),
    ],
)
def test_invalid_forecast_raises(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Forecast(**{"times": TIMES, "values": [1.0, 2.0, 3.0, 4.0], **kwargs})


def test_mixed_resolutions_and_time_zones_are_accepted():
    eastern = timezone(timedelta(hours=-5))
    times = [START, START + timedelta(minutes=30), *[(START + timedelta(hours=h)).astimezone(eastern) for h in (1, 2)]]
    forecast = Forecast(times, [1, 2, 3, 4])
    assert forecast.end == START + timedelta(hours=3)
    with pytest.raises(ValueError, match="read-only"):
        forecast.values[0] = 5.0
