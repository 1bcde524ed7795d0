"""What the planner's types refuse, and how they say it."""

import math
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.planning import Forecast, Job, Level

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
TIMES = [START + timedelta(hours=h) for h in range(4)]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"work_hours": 0}, "`work_hours` should be a number above 0 hours, got 0"),
        ({"work_hours": math.nan}, "`work_hours`"),
        ({"work_hours": "24h"}, "`work_hours`"),
        ({"hold_power": 1.2}, "`hold_power` should be a number of at least 0 and at most 1, got 1.2"),
        ({"hold_power": -0.1}, "`hold_power`"),
        ({"resume_cost": -1}, "`resume_cost` should be a number of at least 0 hours at full power, got -1"),
        ({"resume_cost": math.inf}, "`resume_cost`"),
        ({"deadline": datetime(2024, 5, 1)}, "`deadline` should have a time zone"),
        ({"deadline": "36h"}, "`deadline` should be a datetime"),
        ({"levels": ()}, "`levels`"),
        ({"levels": (Level(0.8, 0.9),)}, "The first of `levels`"),
        ({"pauses": {"sleep"}}, "`pauses`"),
        ({"state": "paused"}, "`state`"),
        ({"min_saving": -0.1}, "`min_saving`"),
        ({"min_saving": 5}, "`min_saving`"),
        ({"stop_rate": 2}, "`stop_rate`"),
        ({"budget": -3}, "`budget`"),
    ],
)
def test_job_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Job(**{"work_hours": 1.0, **kwargs})


@pytest.mark.parametrize("text", ["0.78", "a:b", "0.78:", "1.2:0.9", "0.5:0", "nan:1"])
def test_level_refuses(text):
    with pytest.raises(ValueError, match="should be"):
        Level.parse(text)


def test_level_round_trip():
    assert Level.parse("0.78:0.90") == Level(0.78, 0.9)
    assert Level.parse(str(Level(0.5, 0.75))) == Level(0.5, 0.75)


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
def test_forecast_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Forecast(**{"times": TIMES, "values": [1.0, 2.0, 3.0, 4.0], **kwargs})


def test_forecast_takes_mixed_resolutions_and_other_zones():
    eastern = timezone(timedelta(hours=-5))
    times = [START, START + timedelta(minutes=30), *[(START + timedelta(hours=h)).astimezone(eastern) for h in (1, 2)]]
    forecast = Forecast(times, [1, 2, 3, 4])
    assert forecast.end == START + timedelta(hours=3)
    with pytest.raises(ValueError, match="read-only"):
        forecast.values[0] = 5.0
