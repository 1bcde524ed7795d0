"""The throttle of a fit: stated levels on a simulated clock, without a device."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from lightning_green.planning import Level, Plan
from lightning_green.planning.plans import Slot
from lightning_green.run.remaining_work import StepTimer
from lightning_green.run.throttling import SchedulerThrottle, throttle_controller
from lightning_green.strategies.control_group import Command
from lightning_green.throttle.controller import ThrottleController
from lightning_green.throttle.request import FULL
from tests.helpers.ledgers import read_records
from tests.helpers.open_fits import open_fit
from tests.helpers.scripted_ranks import ScriptedRanks
from tests.helpers.sessions import START

LOW, LOWER = Level(0.5, 0.8), Level(0.3, 0.5)


def plan(level):
    """Return a plan that begins with a level, or with a hold."""
    end, action = START + timedelta(hours=1), "hold" if level is None else "throttle"
    return Plan((Slot(START, end, action, level),), 1.0, 2.0, 0.5, None, end, "dirty now")


@pytest.fixture
def make(opened, tmp_path):
    """Return a function that creates the throttle of a fit, after the start of its first batch."""

    def create(throttle=(str(LOW), str(LOWER)), started=True, **given):
        session, _ = opened(**given)
        fit = open_fit(session, tmp_path, ScriptedRanks(size=1))
        timer = StepTimer()
        made = SchedulerThrottle(
            ThrottleController(throttle if isinstance(throttle, str) else list(throttle)), fit, timer
        )
        if started:
            made.on_batch_start()
        return SimpleNamespace(throttle=made, fit=fit, timer=timer, session=session)

    return create


def states(folder):
    records = [record for record in read_records(folder / "run") if record["event"] == "state"]
    return [(record["state"], record["level"], record["reason"]) for record in records]


def test_scheduler_without_a_throttle_has_no_controller():
    assert throttle_controller(SimpleNamespace(throttle=None, max_slowdown=1.15)) is None
    controller = throttle_controller(SimpleNamespace(throttle="0.5:0.8", max_slowdown=1.3))
    assert (controller.max_slowdown, controller.request.levels) == (1.3, (LOW,))


@pytest.mark.parametrize("throttle", [None, "0.5:0.8"])
def test_max_slowdown_is_checked_with_or_without_a_throttle(throttle):
    with pytest.raises(ValueError, match="`max_slowdown` should be a number of at least 1"):
        throttle_controller(SimpleNamespace(throttle=throttle, max_slowdown=0.9))


def test_levels_are_known_from_the_first_batch_on(make):
    assert make(started=False).throttle.levels() == (FULL,)
    assert make().throttle.levels() == (FULL, LOW, LOWER)


def test_level_of_the_plan_is_entered_once(make, tmp_path):
    made = make()
    for _ in range(2):
        made.throttle.apply(plan(LOW))
    assert states(tmp_path) == [("throttled", "0.5:0.8", "dirty now")]
    assert made.fit.ranks.sent == [(Command.SET_LEVEL, 1, 0.5, 0.8)]


def test_level_of_least_energy_is_entered_without_a_plan(make, tmp_path):
    made = make()
    made.throttle.apply(None)
    assert states(tmp_path) == [("throttled", str(LOWER), "the least energy per step")]


def test_pause_restores_full_power_on_all_nodes(make, tmp_path):
    made = make()
    made.throttle.apply(plan(LOW))
    made.throttle.apply(plan(None))
    assert states(tmp_path)[1:] == [("running", "1:1", "full power again")]
    assert made.fit.ranks.sent[1:] == [(Command.SET_LEVEL, 0, 1.0, 1.0)]


def test_restore_after_the_end_of_the_fit_writes_nothing(make, tmp_path):
    made = make()
    made.throttle.apply(plan(LOW))
    made.fit.ending.close()
    before = len(read_records(tmp_path / "run"))
    made.throttle.restore()
    assert len(read_records(tmp_path / "run")) == before


def test_batch_at_a_level_takes_longer_and_counts_as_its_time_at_full_speed(make):
    made = make()
    per_batch = []
    for level in (FULL, LOW):
        made.throttle.apply(plan(level))
        began = made.session.clock.time()
        for _ in range(4):
            made.throttle.on_batch_start()
            made.session.clock.advance("batch")
            assert made.throttle.on_batch_end() is False
            made.timer.batch(made.session.clock.monotonic())
        per_batch.append((made.session.clock.time() - began) / 4)
    assert per_batch == [pytest.approx(600.0), pytest.approx(750.0)]
    assert made.timer.seconds_per_batch == pytest.approx(600.0)


def test_energy_follows_the_level(make):
    made = make()
    made.throttle.apply(plan(LOW))
    before = made.session.metrics()["energy/kwh"]
    made.session.clock.sleep(3600)
    assert made.session.metrics()["energy/kwh"] == pytest.approx(before + 0.5 * 0.3)


def test_training_without_decisions_is_never_throttled(make, tmp_path):
    made = make(started=False)
    made.fit.why_not_exact = "it is trained in a thread pool"
    made.throttle.on_batch_start()
    made.throttle.apply(plan(LOW))
    assert made.throttle.on_batch_end() is False
    assert states(tmp_path) == []
    assert made.throttle.describe() == "no, because there are no decisions: it is trained in a thread pool"


def test_levels_that_have_to_be_measured_need_a_real_clock(make, tmp_path):
    made = make("auto")
    made.throttle.apply(None)
    assert states(tmp_path) == []
    assert made.throttle.describe() == "no, because no device follows a simulated clock; state a level"


def test_stated_levels_are_described(make):
    assert make().throttle.describe() == "0.5:0.8, 0.3:0.5 (power:speed, stated)"


def test_another_node_sets_the_level_of_rank_zero(make, tmp_path):
    made = make(started=False)
    follower = SimpleNamespace(on_level=None)
    made.fit.boundaries.follower = follower
    made.throttle.on_batch_start()
    follower.on_level(2, 0.3, 0.5)
    follower.on_level(0, 1.0, 1.0)
    assert [state[:2] for state in states(tmp_path)] == [("throttled", "0.3:0.5"), ("running", "1:1")]
    assert made.fit.ranks.sent == []
