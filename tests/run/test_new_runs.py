"""Directories and messages of new runs."""

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.run.candidates import read_candidates
from lightning_green.run.claimant import Claimant
from lightning_green.run.new_runs import add_run, start_new_run
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import make_event
from tests.helpers.runs import ONE, OTHER, fit


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a new run in ``tmp_path/run`` and unlocks it."""

    def start_it(invocation=ONE, function=start_new_run, **options):
        home = tmp_path / "run"
        claimed = function(home, Claimant(invocation, fit(), **options), read_candidates(home))
        claimed.directory.unlock()
        assert not claimed.continuing
        return claimed

    return start_it


def write_run(path, *events, invocation=ONE):
    directory = RunDirectory(path)
    directory.record["invocation"] = invocation.to_json()
    directory.save()
    ledger = Ledger(path, SystemClock(), 1)
    for event in events:
        ledger.append(make_event(event, global_step=7))
    ledger.close()


def test_unused_directory_is_used(start, tmp_path):
    claimed = start()
    assert (claimed.directory.path, claimed.messages) == (tmp_path / "run", ())


@pytest.mark.parametrize(
    ("last", "end"), [("started", "was killed"), ("interrupted", "was interrupted"), ("failed", "failed")]
)
def test_unfinished_run_is_renamed_with_the_command_that_continues_it(start, tmp_path, last, end):
    write_run(tmp_path / "run", last)
    (message,) = start().messages
    archive = tmp_path / "run.1"
    assert message == (
        f"The run in {tmp_path / 'run'} {end} at step 7. It was moved to {archive}, and a new run starts. To continue "
        f"the old run instead, start the script with `LIGHTNING_GREEN_RESUME=1 LIGHTNING_GREEN_RUN_DIR={archive}` or "
        f"under `lightning-green run --run-dir {archive}`."
    )
    assert archive.exists()


def test_finished_run_is_renamed(start, tmp_path):
    write_run(tmp_path / "run", "started", "finished")
    (message,) = start().messages
    assert (
        message
        == f"The run in {tmp_path / 'run'} had finished. It was moved to {tmp_path / 'run.1'}, and a new run starts."
    )


def test_supervised_process_does_not_rename_a_run(start, tmp_path):
    write_run(tmp_path / "run", "started", "finished")
    claimed = start(supervised=True)
    assert claimed.directory.path == tmp_path / "run" / "runs" / ONE.name
    assert not (tmp_path / "run.1").exists()


def test_another_invocation_uses_its_own_directory(start, tmp_path):
    write_run(tmp_path / "run", "started")
    claimed = start(OTHER)
    path = tmp_path / "run" / "runs" / OTHER.name
    assert claimed.directory.path == path
    assert claimed.messages == (
        f"The run in {tmp_path / 'run'} belongs to another training; this training uses its own run directory: {path}.",
    )


def test_added_runs_are_numbered(start, tmp_path):
    write_run(tmp_path / "run", "started")
    for index, name in enumerate((ONE.name, f"{ONE.name}-2", f"{ONE.name}-3"), start=1):
        claimed = start(function=add_run)
        claimed.directory.save()
        assert claimed.directory.path.name == name
        assert claimed.directory.record["index"] == index
