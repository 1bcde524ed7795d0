"""What the end of one start of a command means. No process: the supervisor's tests have the real ends."""

import signal

import pytest

from lightning_green.ledger.events import Started
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunFolder, final_path
from lightning_green.supervisor.attempt import Attempt, Outcome, newest
from lightning_green.supervisor.command import Trainings
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import make_event

TOKEN = "4f1e/2"


@pytest.fixture
def attempt(tmp_path):
    """Return a function that makes an attempt in which fits had these events, as ``(fit, event)``."""

    def make(code, *events, earlier=(), trace="", restored=False):
        folder = RunFolder(tmp_path)
        folder.record["claimed_in"] = TOKEN
        folder.save()
        _write(tmp_path, earlier)
        before = Trainings.of(tmp_path)
        _write(tmp_path, events)
        if restored:
            final_path(tmp_path, 0).parent.mkdir(parents=True, exist_ok=True)
            final_path(tmp_path, 0).touch()
        return Attempt(code, trace, before, Trainings.of(tmp_path), TOKEN)

    return make


def _write(path, events):
    ledger = Ledger(path, SystemClock(), 1)
    for fit, event in events:
        ledger.append(make_event(event, fit=fit, global_step=7, until="2024-05-02T05:00:00+00:00", reason="dirty now"))
    ledger.close()


TRAINED = [(0, "started"), (0, "finished"), (None, "ended")]
PAUSED = [(0, "started"), (0, "paused")]


@pytest.mark.parametrize(
    ("code", "events", "options", "outcome"),
    [
        (0, TRAINED, {}, Outcome.FINISHED),
        (0, [], {}, Outcome.FINISHED),  # a script without our callbacks
        (75, PAUSED, {}, Outcome.PAUSED),
        (0, PAUSED, {}, Outcome.PAUSED),  # the script went on after `fit`
        (0, [], {"earlier": PAUSED}, Outcome.NOT_CONTINUED),
        (0, [(0, "started")], {}, Outcome.CRASHED),  # another process of the command, which was killed
        (1, [], {}, Outcome.CRASHED),
        (1, [(0, "started"), (0, "failed")], {}, Outcome.CRASHED),
        (-signal.SIGKILL, [(0, "started")], {}, Outcome.CRASHED),
        (7, TRAINED, {}, Outcome.FAILED_AFTERWARDS),
        (7, TRAINED, {"restored": True}, Outcome.CRASHED),  # what follows the training is tried again, without it
        (-signal.SIGKILL, TRAINED, {}, Outcome.CRASHED),  # between two fits, it may be
        (7, [], {"earlier": TRAINED}, Outcome.CRASHED),
    ],
)
def test_outcome(attempt, code, events, options, outcome):
    assert attempt(code, *events, **options).outcome is outcome


def test_an_ending_in_words_and_as_a_shell_has_it(attempt):
    failed, killed = attempt(3), attempt(-signal.SIGTERM)
    assert (failed.ending, failed.exit_code) == ("exit code 3", 3)
    assert (killed.ending, killed.exit_code) == ("signal SIGTERM", 143)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([], "died before the training began"),
        ([(0, "started")], "the process was killed or died (exit code 1)"),
        ([(0, "started"), (0, "failed")], "dirty now"),
        (TRAINED, "the training finished; the script then ended with exit code 1"),
    ],
)
def test_why_it_ended(attempt, events, why):
    assert attempt(1, *events).why == why


@pytest.mark.parametrize(
    ("last", "is_hopeless"),
    [
        ("ModuleNotFoundError: No module named 'timm'.", True),
        ("lightning_green.run.identity.OtherTrainingError: the batch size has changed", True),
        ("RuntimeError: an ImportError: was caught", False),
        ("OSError: [Errno 122] Disk quota exceeded", False),
    ],
)
def test_an_error_that_no_start_heals(attempt, last, is_hopeless):
    ended = attempt(1, trace=f'Traceback (most recent call last):\n  File "train.py", line 3\n{last}\n\n')
    assert ended.hopeless_error == (last.rstrip(".") if is_hopeless else None)
    assert ended.last_line == last


def test_without_a_trace_there_is_no_message(attempt):
    assert attempt(1).last_line == "no message"
    assert attempt(1).hopeless_error is None


def test_the_newest_event_counts():
    assert newest({}) is None
    states = {number: Started(time_utc=f"2024-05-02T0{hour}") for number, hour in ((1, 5), (2, 7), (3, 6))}
    assert newest(states) is states[2]
