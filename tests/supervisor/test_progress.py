"""Jobs that meet their time limit without saving progress."""

import pytest

from lightning_green.ledger.history import RunHistory
from lightning_green.supervisor.command import Trainings
from lightning_green.supervisor.progress import FILE, JobProgress, saved_positions
from tests.helpers.ledgers import make_event


def trainings_of(home, *events):
    return Trainings({home: RunHistory([make_event(name, **fields) for name, fields in events])})


def started(step=0):
    return "started", {"global_step": step}


def sample(step):
    return "sample", {"global_step": step}


def saved(step, *position):
    return "checkpoint", {"global_step": step, "position": list(position) or [0, step]}


def answers(home, jobs, max_restarts=2):
    """Return whether each of several jobs may be followed by another one."""
    return [JobProgress(home, max_restarts, lambda line: None).may_continue(trainings_of(home, *job)) for job in jobs]


def test_steps_that_are_not_saved_are_no_progress(tmp_path):
    jobs = [[started(), sample(100 + more)] for more in range(4)]
    assert answers(tmp_path, jobs) == [True, True, True, False]


def test_epoch_longer_than_the_job_is_no_progress(tmp_path):
    jobs = [[started(), saved(50, 1, 0), started(50), sample(90 + more)] for more in range(5)]
    assert answers(tmp_path, jobs) == [True, True, True, False, False]


@pytest.mark.parametrize(
    "events",
    [
        lambda number: [started(), saved(number)],
        lambda number: [started(), saved(0, 0, number)],  # accumulated gradients
        lambda number: [started(number), sample(500)],  # continued by the script itself
        lambda number: [started(), *(("finished", {"fit": fit, "global_step": 5}) for fit in range(number))],
    ],
)
def test_saved_progress_is_never_too_little(tmp_path, events):
    assert answers(tmp_path, [events(number) for number in range(8)]) == [True] * 8


def test_fits_that_restart_in_turn_are_no_progress(tmp_path):
    """A newest checkpoint that was damaged: the run goes back to an earlier one again and again."""
    jobs = [[started(), saved(10 if number % 2 else 20)] for number in range(5)]
    assert answers(tmp_path, jobs) == [True, True, True, False, False]


def test_progress_later_in_the_same_job_takes_the_end_back(tmp_path):
    answers(tmp_path, [[started(), saved(5)]] * 3)
    messages = []
    progress = JobProgress(tmp_path, 2, messages.append)
    assert [progress.may_continue(trainings_of(tmp_path, saved(5))) for _ in range(3)] == [False] * 3
    assert len(messages) == 1
    assert progress.may_continue(trainings_of(tmp_path, saved(6)))
    assert answers(tmp_path, [[saved(6)]]) == [True]


def test_missing_progress_is_reported(tmp_path):
    answers(tmp_path, [[started(), saved(5)]])
    messages = []
    assert JobProgress(tmp_path, 2, messages.append).may_continue(trainings_of(tmp_path, saved(5), sample(80)))
    assert messages == [
        "No new step was saved before the time limit of the job (2 of 3 jobs in a row). The next job repeats the steps "
        "since the last saved state."
    ]


def test_other_nodes_save_no_progress(tmp_path):
    event = make_event("checkpoint", global_step=9, node_rank=1)
    assert saved_positions(Trainings({tmp_path: RunHistory([event])})) == {}


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"saved": {}, "times": "9"}', '{"saved": {"a": 7}, "times": 9}', '{"steps": 7, "times": 9}', "\0"],
)
def test_damaged_record_starts_from_one(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert answers(tmp_path, [[saved(7)]] * 4) == [True, True, True, False]
