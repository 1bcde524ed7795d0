"""Decisions to release a machine. Real jobs are released in ``launchers/test_real_slurm.py``."""

import time
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.ledger.events import Paused
from lightning_green.ledger.history import RunHistory
from lightning_green.ledger.ledger import Ledger
from lightning_green.supervisor import releasing as releasing_module
from lightning_green.supervisor.command import Trainings
from lightning_green.supervisor.launchers.launcher import Release
from lightning_green.supervisor.progress import JobProgress
from lightning_green.supervisor.releasing import Releasing
from lightning_green.supervisor.signals import Signals
from lightning_green.supervisor.waiting import Waiting
from lightning_green.utilities.clock import SimulatedClock, SystemClock
from tests.helpers.ledgers import make_event, read_records
from tests.supervisor.test_time_limit import Batch


class Queue(Batch):
    """A batch system whose job was eligible some time ago."""

    def __init__(self, seconds=None, eligible=None):
        super().__init__(seconds)
        self.eligible = eligible

    def eligible_at(self):
        return self.eligible


class Refusing(Queue):
    """A batch system that refuses some releases."""

    def __init__(self, refusals, seconds=None, is_final=False):
        super().__init__(seconds)
        self.refusals, self.is_final = refusals, is_final

    def release_until(self, begin, print_line):
        super().release_until(begin, print_line)
        if self.releases > self.refusals:
            return Release("job 7")
        self.can_release = not self.is_final
        return None


NONE = Trainings({})


def saved_at(home, step):
    return Trainings({home: RunHistory([make_event("checkpoint", global_step=step, position=[0, step])])})


def releasing_of(launcher, home, max_restarts=3, trainings=NONE):
    messages = []
    progress = JobProgress(home, max_restarts, messages.append)
    signals = Signals(continues=True)
    return Releasing(launcher, signals, 60.0, messages.append, progress, lambda: trainings), messages


def waiting_until(tmp_path, until, return_hours=0.0):
    paused = make_event("paused", until=until.isoformat(), reason="dirty", job={"return_time": return_hours})
    return Waiting({(tmp_path, 0): paused}, lambda line: None)


def test_machine_is_released_until_the_planned_time_minus_the_return_time(tmp_path):
    releasing, messages = releasing_of(Queue(), tmp_path)
    now = datetime.now(timezone.utc)
    assert releasing.during(waiting_until(tmp_path, now + timedelta(hours=3), return_hours=0.5), SystemClock())
    assert releasing.begin_again == now + timedelta(hours=2.5)
    assert releasing.before_start(NONE) == 75
    assert "Exited until" in messages[0]


@pytest.mark.parametrize("seconds", [-100.0, 5.0])
def test_short_wait_keeps_the_machine(tmp_path, seconds):
    releasing, _ = releasing_of(Queue(), tmp_path)
    now = datetime.now(timezone.utc)
    assert not releasing.during(waiting_until(tmp_path, now + timedelta(seconds=seconds)), SystemClock())
    assert releasing.before_start(NONE) is None


def test_wait_of_a_simulated_clock_keeps_the_machine(tmp_path):
    releasing, _ = releasing_of(Queue(), tmp_path)
    clock = SimulatedClock("2024-01-01T00:00:00Z")
    assert not releasing.during(waiting_until(tmp_path, clock.now() + timedelta(hours=3)), clock)
    assert releasing.retry_at is None
    assert releasing.before_start(NONE) is None


def test_start_has_waited_since_its_job_was_eligible(tmp_path):
    eligible = time.time() - 600.0
    releasing, _ = releasing_of(Queue(eligible=eligible), tmp_path)
    assert releasing.waited_since() == eligible
    assert releasing.waited_since() is None  # another start in the same job


def test_start_that_came_too_early_has_waited_since_the_planned_time(tmp_path):
    now = datetime.now(timezone.utc)
    releasing, _ = releasing_of(Queue(eligible=time.time() - 600.0), tmp_path)
    releasing.during(waiting_until(tmp_path, now - timedelta(seconds=20)), SystemClock())
    assert releasing.waited_since() == (now - timedelta(seconds=20)).timestamp()


def test_launcher_that_does_not_know_the_queue_measures_from_the_start(tmp_path):
    assert releasing_of(Queue(), tmp_path)[0].waited_since() is None


def test_refused_release_is_tried_again_later_in_the_same_wait(tmp_path):
    launcher, clock = Refusing(1, 36000.0), SystemClock()
    until = datetime.now(timezone.utc) + timedelta(hours=3)
    releasing, _ = releasing_of(launcher, tmp_path)
    assert releasing.during(waiting_until(tmp_path, until), clock)
    assert releasing.release_machine() is None
    assert launcher.releases == 1  # a wait is not blocked

    again, _ = releasing_of(launcher, tmp_path)
    assert not again.during(waiting_until(tmp_path, until), clock)
    assert again.retry_at == launcher.refused_at + releasing_module.REFUSED_SECONDS
    assert again.begin_again is None
    launcher.refused_at -= 1000.0
    assert again.during(waiting_until(tmp_path, until), clock)
    assert again.release_machine() == Release("job 7")
    assert launcher.refused_at is None


def test_refused_release_is_tried_again_when_the_time_limit_is_near(tmp_path):
    launcher = Refusing(1, 120.0)
    launcher.release(datetime.now(timezone.utc), print)
    releasing, _ = releasing_of(launcher, tmp_path)
    releasing.during(waiting_until(tmp_path, datetime.now(timezone.utc) + timedelta(hours=3)), SystemClock())
    assert launcher.refused_at + releasing_module.LEAST_REFUSED_SECONDS <= releasing.retry_at < launcher.end


def test_time_in_which_a_refused_release_keeps_the_devices_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    until = datetime.now(timezone.utc) + timedelta(hours=3)
    ledger = Ledger(tmp_path, SystemClock(), 1)
    ledger.append(Paused(until=until, state="out"))
    ledger.close()
    launcher, trainings = Refusing(1), Trainings.of(tmp_path)
    for _ in range(2):
        releasing, _ = releasing_of(launcher, tmp_path, trainings=trainings)
        releasing.begin_again = until
        releasing.release_machine()
    first, second = [record for record in read_records(tmp_path) if record["event"] == "allocation_kept"]
    assert first["allocation"] == second["allocation"] == "SLURM job 7"
    assert first["since"] == second["since"] <= first["until"] <= second["until"]
    assert list(Trainings.of(tmp_path).paused.values()) == list(trainings.paused.values())
    (history,) = Trainings.of(tmp_path).histories.values()
    assert history.accounts[0].totals.allocation == "SLURM job 7"


def test_machine_that_is_released_at_once_adds_no_record(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    releasing, _ = releasing_of(Queue(), tmp_path, trainings=Trainings.of(tmp_path))
    releasing.begin_again = datetime.now(timezone.utc)
    assert releasing.release_machine() == Release("job 7")
    assert read_records(tmp_path) == []


def test_start_after_a_refused_release_has_not_waited_for_its_machine(tmp_path):
    launcher = Refusing(1)
    launcher.eligible = time.time() - 600.0
    launcher.release(datetime.now(timezone.utc), print)
    assert releasing_of(launcher, tmp_path)[0].waited_since() is None


@pytest.mark.parametrize(("is_final", "releases"), [(False, 3), (True, 1)])
def test_refused_release_at_the_time_limit_is_repeated(tmp_path, monkeypatch, is_final, releases):
    monkeypatch.setattr(releasing_module, "RETRY_SECONDS", 0.01)
    launcher = Refusing(2, 2.0, is_final)
    releasing, _ = releasing_of(launcher, tmp_path)
    assert releasing.before_start(NONE) == 75
    assert releasing.release_machine() == (None if is_final else Release("job 7"))
    assert launcher.releases == releases


def test_time_limits_without_a_saved_step_end_the_run(tmp_path):
    at_seven = saved_at(tmp_path, 7)
    codes = [releasing_of(Queue(2.0), tmp_path, 2)[0].before_start(at_seven) for _ in range(4)]
    assert codes == [75, 75, 75, 1]
    releasing, messages = releasing_of(Queue(2.0), tmp_path, 2)
    assert releasing.before_start(at_seven) == 1
    assert "without saving a new step" in messages[-1]
    assert releasing.begin_again is None
    assert releasing_of(Queue(2.0), tmp_path, 2)[0].before_start(saved_at(tmp_path, 8)) == 75  # progress
