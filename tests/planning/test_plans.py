"""The end of the first action of a plan."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.planning import Level
from lightning_green.planning.plans import Plan, Slot

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
END = START + timedelta(hours=9)
FULL, SLOW, SLOWER = Level(1, 1), Level(0.78, 0.9), Level(0.5, 0.65)


def until(*actions):
    """Return the hours until the end of the first action of a plan with one action per hour."""
    hour = timedelta(hours=1)
    slots = [Slot(START + hour * at, START + hour * (at + 1), *action) for at, action in enumerate(actions)]
    plan = Plan(tuple(slots), 0.0, 0.0, 0.0, None, END, "")
    return (plan.until - START) / hour


@pytest.mark.parametrize(
    ("actions", "hours"),
    [
        ([("run", FULL), ("run", FULL), ("exit", None), ("run", FULL)], 2),
        ([("throttle", SLOW), ("throttle", SLOWER)], 1),
        ([("hold", None), ("hold", None), ("exit", None)], 2),
        ([("run", FULL), ("run", FULL)], 2),
        ([], 9),
    ],
)
def test_first_action_ends_with_another_action_or_level(actions, hours):
    assert until(*actions) == hours
