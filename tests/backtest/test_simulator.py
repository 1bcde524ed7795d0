"""The simulator counts energy and emissions; expected values are computed by hand."""

import pytest

from lightning_green.backtest.simulator import Simulator
from lightning_green.planning import Level


def walk(job, *steps):
    for action, intensity, *level in steps:
        job.step(action, 1.0, intensity, *level)
    return job


def test_run_hold_exit_and_restart():
    job = walk(
        Simulator(3.5, hold_power=0.25, resume_cost=0.2),
        ("run", 100), ("hold", 400), ("run", 200), ("exit", 900), ("exit", 900), ("run", 50), ("run", 80),
    )  # fmt: skip
    assert job.attributed == pytest.approx(100 + 0.25 * 400 + 200 + (1 + 0.2) * 50 + 0.5 * 80)
    assert (job.exits, job.hours, job.done) == (1, 6.5, True)


def test_throttle_is_slower_and_draws_less_power():
    level = Level(0.78, 0.9)
    job = walk(Simulator(1.35), ("throttle", 100, level), ("throttle", 200, level))
    assert job.hours == pytest.approx(1.5)
    assert job.attributed == pytest.approx(0.78 * 100 + 0.5 * 0.78 * 200)


def test_impossible_step_raises():
    job = walk(Simulator(1), ("exit", 100))
    with pytest.raises(ValueError, match="cannot hold"):
        job.step("hold", 1.0, 100)
    walk(job, ("run", 100))
    with pytest.raises(ValueError, match="work is done"):
        job.step("run", 1.0, 100)


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [({"work_hours": 0}, "work_hours"), ({"hold_power": 1.5}, "hold_power"), ({"resume_cost": -1}, "resume_cost")],
)  # fmt: skip
def test_invalid_argument_raises(kwargs, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Simulator(**{"work_hours": 1.0, **kwargs})


def test_return_takes_time_before_the_work_and_kept_devices_draw_power():
    job = Simulator(2, resume_cost=0.2, return_time=1.5, out_power=0.1)
    walk(job, ("exit", 100), ("run", 200))
    assert (job.returning, job.remaining_work, job.hours_to_work) == (0.5, 2, 0.5)
    assert job.attributed == pytest.approx(0.1 * 100 + (0.2 + 0.1) * 200)
    with pytest.raises(ValueError, match="cannot pause before its first work"):
        job.step("exit", 1.0, 100)
    walk(job, ("run", 300))
    assert (job.returning, job.remaining_work) == (0.0, 1.5)
    assert job.attributed == pytest.approx(70 + (0.1 * 0.5 + 0.5) * 300)
    assert job.hours == 3.0
