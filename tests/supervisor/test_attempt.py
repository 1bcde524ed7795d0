"""Outcome of an attempt, from ledgers without a process. The tests of the supervisor use real processes."""

import signal

import pytest

from lightning_green.ledger.events import Started
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory, final_path
from lightning_green.supervisor.attempt import Attempt, Outcome, newest
from lightning_green.supervisor.command import Trainings
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import make_event

NAME = "4f1e/2"


@pytest.fixture
def attempt(tmp_path):
    """Return a function that creates an attempt from events of fits, as ``(fit, event)``."""

    def make(code, *events, earlier=(), traceback="", restored=False):
        directory = RunDirectory(tmp_path)
        directory.record["claimed_in"] = NAME
        directory.save()
        _write(tmp_path, earlier)
        before = Trainings.of(tmp_path)
        _write(tmp_path, events)
        if restored:
            final_path(tmp_path, 0).parent.mkdir(parents=True, exist_ok=True)
            final_path(tmp_path, 0).touch()
        return Attempt(code, traceback, before, Trainings.of(tmp_path), NAME)

    return make


def _write(path, events):
    ledger = Ledger(path, SystemClock(), 1)
    for fit, event in events:
        name, _, untimed = event.partition(" without")
        until = None if untimed else "2024-05-02T05:00:00+00:00"
        ledger.append(make_event(name, fit=fit, global_step=7, until=until, reason="dirty now"))
    ledger.close()


TRAINED = [(0, "started"), (0, "finished"), (None, "ended")]
PAUSED = [(0, "started"), (0, "paused")]
AWAITING = [(0, "started"), (0, "paused without a time")]


@pytest.mark.parametrize(
    ("code", "events", "options", "outcome"),
    [
        (0, TRAINED, {}, Outcome.FINISHED),
        (0, [], {}, Outcome.FINISHED),  # a script without callbacks of the suite
        (75, PAUSED, {}, Outcome.PAUSED),
        (0, PAUSED, {}, Outcome.PAUSED),  # the script continued after `fit`
        (75, AWAITING, {}, Outcome.AWAITING),
        (0, AWAITING, {}, Outcome.AWAITING),  # under torchrun
        (0, [(1, "started"), (1, "paused"), *AWAITING], {}, Outcome.PAUSED),  # the planned one starts the command
        (1, [(1, "started"), (1, "failed"), *AWAITING], {}, Outcome.CRASHED),
        (0, [], {"earlier": AWAITING}, Outcome.NOT_CONTINUED),
        (0, [], {"earlier": PAUSED}, Outcome.NOT_CONTINUED),
        (0, [(0, "started")], {}, Outcome.CRASHED),  # another process of the command was killed
        (1, [], {}, Outcome.CRASHED),
        (1, [(0, "started"), (0, "failed")], {}, Outcome.CRASHED),
        (-signal.SIGKILL, [(0, "started")], {}, Outcome.CRASHED),
        (7, TRAINED, {}, Outcome.FAILED_AFTERWARDS),
        (7, TRAINED, {"restored": True}, Outcome.CRASHED),  # the code after the training is repeated without training
        (-signal.SIGKILL, TRAINED, {}, Outcome.CRASHED),  # possibly between two fits
        (7, [], {"earlier": TRAINED}, Outcome.CRASHED),
    ],
)
def test_outcome_follows_from_exit_code_and_events(attempt, code, events, options, outcome):
    assert attempt(code, *events, **options).outcome is outcome


def test_ending_and_exit_code_of_failed_and_killed_process(attempt):
    failed, killed = attempt(3), attempt(-signal.SIGTERM)
    assert (failed.ending, failed.exit_code) == ("exit code 3", 3)
    assert (killed.ending, killed.exit_code) == ("signal SIGTERM", 143)


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([], "the process died before training started"),
        ([(0, "started")], "the process was killed or died (exit code 1)"),
        ([(0, "started"), (0, "failed")], "dirty now"),
        (TRAINED, "the training finished; the script then ended with exit code 1"),
    ],
)
def test_reason_describes_the_last_event(attempt, events, reason):
    assert attempt(1, *events).reason == reason


@pytest.mark.parametrize(
    ("last", "is_permanent"),
    [
        ("ModuleNotFoundError: No module named 'timm'.", True),
        ("lightning_green.run.identity.OtherTrainingError: the batch size has changed", True),
        ("RuntimeError: an ImportError: was caught", False),
        ("OSError: [Errno 122] Disk quota exceeded", False),
    ],
)
def test_import_and_training_mismatch_errors_are_permanent(attempt, last, is_permanent):
    ended = attempt(1, traceback=f'Traceback (most recent call last):\n  File "train.py", line 3\n{last}\n\n')
    assert ended.permanent_error == (last.rstrip(".") if is_permanent else None)
    assert ended.last_line == last


def test_script_that_does_not_exist_is_permanent_unless_a_training_ran_before(attempt):
    line = "can't open file '/home/me/missing.py': [Errno 2] No such file or directory"
    assert attempt(2, traceback=line).permanent_error == line
    assert attempt(2, *TRAINED, traceback=line).permanent_error is None


def test_attempt_without_traceback_has_no_message(attempt):
    assert attempt(1).last_line == "no message"
    assert attempt(1).permanent_error is None


def test_newest_returns_the_latest_event():
    assert newest({}) is None
    states = {number: Started(time_utc=f"2024-05-02T0{hour}") for number, hour in ((1, 5), (2, 7), (3, 6))}
    assert newest(states) is states[2]
