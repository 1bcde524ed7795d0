"""The time limit of a job, with processes of which a test knows when they are ready."""

import signal
import time

import pytest

from lightning_green.supervisor.launchers.launcher import Launcher, Release
from lightning_green.supervisor.signals import Signals
from lightning_green.supervisor.time_limit import TimeLimit


class Batch(Launcher):
    """A batch system with a time limit."""

    name, can_release = "batch", True
    seconds: float | None = 1000.0

    def __init__(self, seconds):
        super().__init__({})
        self.end = None if seconds is None else time.time() + seconds
        self.releases = 0

    @classmethod
    def detect(cls, environment=None):
        return True

    def ends_at(self):
        return self.end

    def release_until(self, begin, print_line):
        self.releases += 1
        return Release("job 7")


class Ranks:
    """Processes that are ready for a signal or not."""

    def __init__(self):
        self.is_ready, self.asked = True, []

    def ask_ranks(self, number):
        if self.is_ready:
            self.asked.append(number)
        return self.is_ready


@pytest.fixture
def signals():
    return Signals(continues=True)


def limit_of(launcher, signals, stop_seconds=60.0):
    messages = []
    return TimeLimit(launcher, signals, stop_seconds, messages.append), messages


def test_nothing_happens_long_before_the_limit(signals):
    limit, messages = limit_of(Batch(1000.0), signals)
    ranks = Ranks()
    limit.check(ranks)
    assert (limit.is_reached, ranks.asked, messages) == (False, [], [])


def test_job_without_a_limit_is_never_near_it(signals):
    limit, _ = limit_of(Batch(None), signals)
    limit.check(Ranks())
    assert not limit.is_reached


def test_training_is_asked_once_before_the_limit(signals):
    limit, messages = limit_of(Batch(14.0), signals)
    ranks = Ranks()
    for _ in range(3):
        limit.check(ranks)
    assert limit.is_reached
    assert ranks.asked == [signal.SIGTERM]
    assert len(messages) == 1
    assert limit.release is None


def test_extended_limit_is_read_again(signals):
    launcher = Batch(14.0)
    limit, _ = limit_of(launcher, signals)
    launcher.end += 1000.0
    limit.check(Ranks())
    assert not limit.is_reached


def test_signal_waits_for_a_training_that_is_ready(signals):
    limit, _ = limit_of(Batch(1000.0), signals)
    ranks = Ranks()
    ranks.is_ready = False
    signals.limit = signal.SIGUSR1
    limit.check(ranks)
    assert limit.is_reached
    assert ranks.asked == []
    ranks.is_ready = True
    limit.check(ranks)
    assert ranks.asked == [signal.SIGTERM]


def test_job_is_released_once_if_the_training_does_not_end(signals):
    launcher = Batch(2.0)
    limit, _ = limit_of(launcher, signals)
    ranks = Ranks()
    ranks.is_ready = False
    for _ in range(3):
        limit.check(ranks)
    assert launcher.releases == 1
    assert limit.release == Release("job 7")


def test_job_without_progress_is_not_released(signals):
    launcher, answers = Batch(2.0), [False, True]
    limit = TimeLimit(launcher, signals, 60.0, [].append, lambda: answers.pop(0))
    ranks = Ranks()
    limit.check(ranks)
    assert (launcher.releases, limit.release) == (0, None)
    limit._last = 0.0  # the next attempt
    limit.check(ranks)
    assert limit.release == Release("job 7")


def test_refused_release_is_repeated_until_the_limit(signals):
    launcher = Batch(2.0)
    limit, _ = limit_of(launcher, signals)
    launcher.release_until = lambda begin, print_line: None
    limit.check(Ranks())
    assert limit.release is None
    del launcher.release_until
    limit._last = 0.0
    limit.check(Ranks())
    assert limit.release == Release("job 7")


def test_stop_is_no_limit(signals):
    limit, _ = limit_of(Batch(2.0), signals)
    signals.stop = signal.SIGTERM
    ranks = Ranks()
    limit.check(ranks)
    assert (limit.is_reached, ranks.asked) == (False, [])
