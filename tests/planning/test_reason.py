"""Reasons of plans as sentences."""

import math
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.planning import Level
from lightning_green.planning.plans import Slot
from lightning_green.planning.reason import (
    format_hours,
    format_intensities,
    format_saving,
    format_time,
    mean_work_intensity,
    pause_reason,
    run_reason,
)

START = datetime(2024, 5, 1, 20, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
FULL, SLOW = Level(1, 1), Level(0.78, 0.9)


def slots(*actions):
    """Return one slot per hour from (action, level, intensity)."""
    return tuple(Slot(START + HOUR * at, START + HOUR * (at + 1), *action) for at, action in enumerate(actions))


def test_time_has_a_date_only_on_another_day():
    assert format_time(START + HOUR, START) == "21:00 UTC"
    assert format_time(START + 5 * HOUR, START) == "02 May 01:00 UTC"


@pytest.mark.parametrize(
    ("hours", "text"), [(0.0, "0 min"), (0.99, "59 min"), (0.996, "1 h"), (1.04, "1 h"), (26.25, "26.2 h")]
)
def test_hours_below_one_are_minutes(hours, text):
    assert format_hours(hours) == text


def test_saving_has_its_standard_deviation_if_known():
    assert format_saving(0.1234, 0.02) == "12.3% less than running now (± 2.0%)"
    assert format_saving(0.1234, None) == format_saving(0.1234, 0.0) == "12.3% less than running now"


def test_pause_names_its_end_the_mean_intensities_of_the_work_and_the_slack():
    made = slots(("exit", None, 500), ("exit", None, 450), ("run", FULL, 100))
    end = START + 3 * HOUR
    assert pause_reason(made, START, 0.25, 0.02, 412.0, end, 1.5) == (
        "Exit until 22:00 UTC: the remaining work runs at 100 instead of 412 gCO2e/kWh on average. The plan emits "
        "25.0% less than running now (± 2.0%) and finishes at 23:00 UTC, 1.5 h before the deadline."
    )
    held = slots(("hold", None, 500), ("throttle", SLOW, 100))
    assert pause_reason(held, START, 0.25, None, 412.0, end, None) == (
        "Hold until 21:00 UTC: the remaining work runs at 100 instead of 412 gCO2e/kWh on average. The plan emits "
        "25.0% less than running now and finishes at 23:00 UTC."
    )
    assert "0 min before the deadline" in pause_reason(held, START, 0.25, None, 412.0, end, -1e-9)


def test_work_before_a_pause_names_the_pause():
    made = slots(("run", FULL, 100), ("hold", None, 500), ("run", FULL, 200))
    assert run_reason(made, START, 0.25, None, 300.0) == (
        "Run now and hold at 21:00 UTC: the remaining work runs at 150 instead of 300 gCO2e/kWh on average. The plan "
        "emits 25.0% less than running now."
    )


def test_work_without_a_pause_or_throttling_saves_nothing():
    made = slots(("run", FULL, 100), ("run", FULL, 500))
    assert run_reason(made, START, 0.0, None, 300.0) == (
        "Run now: at 100 gCO2e/kWh no pause before the deadline reduces emissions."
    )


def test_throttling_names_the_level_and_the_saving():
    for made in (slots(("throttle", SLOW, 100)), slots(("throttle", SLOW, 100), ("run", FULL, 90))):
        assert run_reason(made, START, 0.05, None, 95.0) == (
            f"Run at {SLOW} (power:speed) at 100 gCO2e/kWh without a pause. The plan emits 5.0% less than running now."
        )


def test_mean_intensity_weighs_each_slot_by_its_energy():
    half = slots(("run", FULL, 100), ("exit", None, 900), ("throttle", Level(0.5, 0.6), 400))
    assert mean_work_intensity(half) == pytest.approx((100 + 0.5 * 400) / 1.5)
    assert math.isnan(mean_work_intensity(slots(("exit", None, 900))))


def test_close_intensities_get_another_digit():
    assert "318.2 instead of 318.4 gCO2e/kWh" in format_intensities(318.2, 318.4)
