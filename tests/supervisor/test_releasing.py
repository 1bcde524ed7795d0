"""Decisions to release a machine. Real jobs are released in ``launchers/test_real_slurm.py``."""

import time
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.supervisor.releasing import Releasing
from lightning_green.supervisor.signals import Signals
from lightning_green.supervisor.time_limit import FILE, count_without_progress
from lightning_green.supervisor.waiting import Waiting
from tests.helpers.ledgers import make_event
from tests.supervisor.test_time_limit import Batch


class Queue(Batch):
    """A batch system whose job was eligible some time ago."""

    def __init__(self, seconds=None, eligible=None):
        super().__init__(seconds)
        self.eligible = eligible

    def eligible_at(self):
        return self.eligible


def releasing_of(launcher):
    messages = []
    return Releasing(launcher, Signals(continues=True), 60.0, messages.append), messages


def waiting_until(tmp_path, until, return_hours=0.0):
    paused = make_event("paused", until=until.isoformat(), reason="dirty", job={"return_time": return_hours})
    return Waiting({(tmp_path, 0): paused}, lambda line: None)


def test_machine_is_released_until_the_planned_time_minus_the_return_time(tmp_path):
    releasing, messages = releasing_of(Queue())
    now = datetime.now(timezone.utc)
    assert releasing.during(waiting_until(tmp_path, now + timedelta(hours=3), return_hours=0.5), now)
    assert releasing.begin_again == now + timedelta(hours=2.5)
    assert releasing.before_start(tmp_path, 0, 3) == 75
    assert "Exited until" in messages[0]


@pytest.mark.parametrize("seconds", [-100.0, 5.0])
def test_short_wait_keeps_the_machine(tmp_path, seconds):
    releasing, _ = releasing_of(Queue())
    now = datetime.now(timezone.utc)
    assert not releasing.during(waiting_until(tmp_path, now + timedelta(seconds=seconds)), now)
    assert releasing.before_start(tmp_path, 0, 3) is None


def test_start_has_waited_since_its_job_was_eligible(tmp_path):
    eligible = time.time() - 600.0
    releasing, _ = releasing_of(Queue(eligible=eligible))
    assert releasing.waited_since() == eligible
    assert releasing.waited_since() is None  # another start in the same job


def test_start_that_came_too_early_has_waited_since_the_planned_time(tmp_path):
    now = datetime.now(timezone.utc)
    releasing, _ = releasing_of(Queue(eligible=time.time() - 600.0))
    releasing.during(waiting_until(tmp_path, now - timedelta(seconds=20)), now)
    assert releasing.waited_since() == (now - timedelta(seconds=20)).timestamp()


def test_launcher_that_does_not_know_the_queue_measures_from_the_start():
    assert releasing_of(Queue())[0].waited_since() is None


def test_time_limits_without_a_new_step_end_the_run(tmp_path):
    codes = [releasing_of(Queue(2.0))[0].before_start(tmp_path, 7, 2) for _ in range(4)]
    assert codes == [75, 75, 75, 1]
    releasing, messages = releasing_of(Queue(2.0))
    assert releasing.before_start(tmp_path, 7, 2) == 1
    assert "without a new step" in messages[-1]
    assert releasing.begin_again is None
    assert releasing_of(Queue(2.0))[0].before_start(tmp_path, 8, 2) == 75  # progress


@pytest.mark.parametrize("text", ["", "[]", '{"steps": 7, "times": "9"}', '{"steps": 7}', "\0"])
def test_damaged_record_starts_from_one(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert count_without_progress(tmp_path, 7) == 1
    assert count_without_progress(tmp_path, 7) == 2
