"""Reasons of plans as sentences."""

import math
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.planning import Level
from lightning_green.planning.plans import Slot
from lightning_green.planning.reason import (
    Saving,
    format_hours,
    format_intensities,
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


@pytest.mark.parametrize(
    ("saving", "text"),
    [
        (Saving(0.1234, 0.02), "saves about 12.3% ± 2.0%"),
        (Saving(0.1234, 0.0), "saves about 12.3%"),
        (Saving(0.1234, 0.02, 2755.0), "saves about 340 g of 2.8 kg (12.3% ± 2.0%)"),
        (Saving(0.1234, None, 2755.0, marginal=True), "saves about 340 g of 2.8 kg (12.3%, marginal)"),
        (Saving(0.1234, None, marginal=True), "saves about 12.3%, marginal"),
        (Saving(-0.05, None, 2000.0), "emits about 100 g more (5.0%)"),
        (Saving(-0.05), "emits about 5.0% more"),
        (Saving(0.0, None, 0.0), "saves about 0 g of 0 g (0.0%)"),
    ],
)
def test_saving_is_in_grams_if_the_power_is_known(saving, text):
    assert str(saving) == text


def test_pause_names_its_end_the_mean_intensities_of_the_work_and_the_slack():
    made = slots(("exit", None, 500), ("exit", None, 450), ("run", FULL, 100))
    end = START + 3 * HOUR
    assert pause_reason(made, START, Saving(0.25, 0.02), 412.0, end, 1.5) == (
        "Exit until 22:00 UTC: 412 -> 100 gCO2e/kWh for the remaining work, saves about 25.0% ± 2.0%. "
        "Ends at 23:00 UTC, 1.5 h before the deadline."
    )
    held = slots(("hold", None, 500), ("throttle", SLOW, 100))
    assert pause_reason(held, START, Saving(0.25, None, 824.0), 412.0, end, None) == (
        "Hold until 21:00 UTC: 412 -> 100 gCO2e/kWh for the remaining work, saves about 206 g of 824 g (25.0%). "
        "Ends at 23:00 UTC."
    )
    assert "0 min before the deadline" in pause_reason(held, START, Saving(0.25), 412.0, end, -1e-9)


def test_work_before_a_pause_names_the_pause():
    made = slots(("run", FULL, 100), ("hold", None, 500), ("run", FULL, 200))
    assert run_reason(made, START, Saving(0.25), 300.0) == (
        "Run now and hold at 21:00 UTC: 300 -> 150 gCO2e/kWh for the remaining work, saves about 25.0%."
    )


def test_work_without_a_pause_or_throttling_saves_nothing():
    made = slots(("run", FULL, 100), ("run", FULL, 500))
    assert run_reason(made, START, Saving(0.0), 300.0) == (
        "Run now: at 100 gCO2e/kWh no pause before the deadline reduces emissions."
    )


def test_throttling_names_the_level_and_the_saving():
    for made in (slots(("throttle", SLOW, 100)), slots(("throttle", SLOW, 100), ("run", FULL, 90))):
        assert run_reason(made, START, Saving(0.05), 95.0) == (
            f"Run at {SLOW} (power:speed) at 100 gCO2e/kWh without a pause: saves about 5.0%."
        )


def test_mean_intensity_weighs_each_slot_by_its_energy():
    half = slots(("run", FULL, 100), ("exit", None, 900), ("throttle", Level(0.5, 0.6), 400))
    assert mean_work_intensity(half) == pytest.approx((100 + 0.5 * 400) / 1.5)
    assert math.isnan(mean_work_intensity(slots(("exit", None, 900))))


def test_close_intensities_get_another_digit():
    assert "318.4 -> 318.2 gCO2e/kWh" in format_intensities(318.2, 318.4)
