"""Opening the run directory of a supervised command."""

import os
import sys

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory, RunIsAliveError
from lightning_green.supervisor.command import Command, OtherCommandError, write_command
from lightning_green.supervisor.run_directory import open_run_directory, undo_open
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import make_event, read_records
from tests.helpers.processes import green, run_to_the_end

COMMAND = Command(("python", "train.py"), "/home/me")
OTHER = Command(("python", "train.py", "--lr", "1"), "/home/me")


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens ``tmp_path/run`` and returns the messages; the directory is unlocked at once."""

    def open_it(fresh=False, **options):
        messages = []
        open_run_directory(tmp_path / "run", fresh, messages.append, **options).unlock()
        return messages

    return open_it


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a run with these events and, with ``code``, the record of its command."""

    def write(*events, code="not recorded"):
        directory = RunDirectory(tmp_path / "run")
        directory.save()
        ledger = Ledger(directory.path, SystemClock(), 1)
        for event in events:
            ledger.append(make_event(event, until="2024-05-02T05:00:00+00:00", reason=""))
        ledger.close()
        if code != "not recorded":
            write_command(directory.path, COMMAND, code)
        return directory

    return write


@pytest.mark.parametrize(
    ("events", "code", "is_renamed"),
    [
        (["started", "finished", "ended"], 0, True),
        (["started", "finished", "ended"], 7, False),  # the code after the training is repeated
        (["started", "finished", "ended"], None, False),  # the exit code is unknown
        (["started", "finished", "ended"], "not recorded", True),  # trained without a supervisor
        (["started", "paused"], None, False),
        ([], 0, False),
    ],
)
def test_finished_run_is_renamed(opened, written, tmp_path, events, code, is_renamed):
    written(*events, code=code)
    expected = [f"The finished run was moved to {tmp_path / 'run.1'}. A new run starts."]
    assert opened() == (expected if is_renamed else [])
    assert (tmp_path / "run.1").exists() is is_renamed


def test_run_of_a_killed_supervisor_is_not_finished(opened, written, tmp_path):
    written("started", "finished", "ended")
    (tmp_path / "run" / "supervisor.heartbeat").write_text("")
    assert opened() == []


def test_fresh_renames_an_unfinished_run(opened, written, tmp_path):
    written("started", "paused", code=None)
    assert opened(fresh=True) == [f"The earlier run was moved to {tmp_path / 'run.1'}. A new run starts."]
    assert opened(fresh=True) == []  # the new directory is empty


def test_fresh_does_not_rename_a_running_run(opened, written):
    directory = written("started", code=None)
    directory.lock("run")
    with pytest.raises(RunIsAliveError, match=f"is already running in process {os.getpid()} on "):
        opened(fresh=True)
    directory.unlock()


def test_directory_of_another_command_is_refused_without_force(opened, written):
    written("started", "paused", code=None)
    for _ in range(2):  # the refused call unlocks the directory
        with pytest.raises(OtherCommandError, match=r"not with `python train\.py --lr 1`"):
            opened(command=OTHER)
    assert opened(command=OTHER, force=True) == []
    assert opened(command=COMMAND) == []


def test_directory_is_locked_for_one_supervisor(written, tmp_path):
    written("started", "paused", code=None)
    first = open_run_directory(tmp_path / "run", fresh=False)
    with pytest.raises(RunIsAliveError):
        open_run_directory(tmp_path / "run", fresh=False)
    first.unlock()


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("words", [("missing.py",), ("-c", "import a_module_that_is_missing"), ("-c", "if True")])
def test_command_that_cannot_start_leaves_nothing_behind(tmp_path, words):
    run_dir = tmp_path / "runs" / "run"
    line = green("run", "--run-dir", run_dir, "--", sys.executable, *words)
    code, output = run_to_the_end(line, tmp_path)
    assert code == 1, output
    assert "The command cannot start: " in output
    assert not run_dir.parent.exists()

    Ledger(RunDirectory(run_dir).path, SystemClock(), 1).append(make_event("finished", global_step=9))
    code, output = run_to_the_end(line, tmp_path)
    assert code == 1, output
    assert f"The earlier run was moved back to {run_dir}." in output
    assert [path.name for path in run_dir.parent.iterdir()] == ["run"]
    assert read_records(run_dir)[0]["event"] == "finished"


def test_directory_of_the_user_and_recorded_trainings_are_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    code, _ = run_to_the_end(green("run", "--run-dir", tmp_path / "mine", "--", sys.executable, "missing.py"), tmp_path)
    assert code == 1
    assert (tmp_path / "mine" / "stderr.log").exists()
    directory = open_run_directory(tmp_path / "run", fresh=False)
    Ledger(directory.path, SystemClock(), 1).append(make_event("started", global_step=0))
    undo_open(directory)
    assert read_records(tmp_path / "run")
