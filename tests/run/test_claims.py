"""Which run directory a process claims."""

import os
from types import SimpleNamespace

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory, RunIsAliveError
from lightning_green.run import claimant, first_states
from lightning_green.run.claims import HomeGoneError
from lightning_green.run.coordinator import open_run
from lightning_green.run.identity import Invocation
from lightning_green.run.run import OtherTrainingError
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.ledgers import make_event, read_records
from tests.helpers.runs import ONE, OTHER, START, end, fit, set_supervisor, write
from tests.helpers.sessions import clock

CONTINUES = {  # last state -> continued without a request, with RESUME=1, and under the supervisor
    "paused": (True, True, True),
    "interrupted": (False, True, True),
    "failed": (False, True, True),
    "started": (False, True, True),
    "finished": (False, True, True),  # the process was killed before the end of the script
    "ended": (False, False, True),  # the supervisor has already renamed finished runs
}


@pytest.mark.parametrize("event", CONTINUES)
@pytest.mark.parametrize("how", ["manually", "resume", "supervised"])
def test_run_is_continued_depending_on_its_last_state_and_the_start(tmp_path, monkeypatch, claim, event, how):
    run, _, _ = claim()
    states = {"started": [], "ended": ["finished"]}.get(event, [event])
    end(run, "started", *states, cleanly=event == "ended")
    if how != "manually":
        monkeypatch.setenv({"resume": "LIGHTNING_GREEN_RESUME", "supervised": "LIGHTNING_GREEN_SUPERVISED"}[how], "1")
    continues = CONTINUES[event][["manually", "resume", "supervised"].index(how)]
    run, claimed, messages = claim()
    assert (run.continuing, run.attempt) == ((True, 2) if continues else (False, 1))
    assert claimed.continuing is continues
    assert (tmp_path / "run.1").exists() is not continues  # no record is lost
    if continues:
        assert messages == []
        return
    (line,) = messages
    assert f"It was moved to {tmp_path / 'run.1'}" in line
    assert read_records(tmp_path / "run.1")[0]["event"] == "started"
    if event in ("finished", "ended"):
        assert "had finished. It was moved to" in line
    else:
        assert {"interrupted": "was interrupted", "failed": "failed", "started": "was killed"}[event] in line
        assert "LIGHTNING_GREEN_RESUME=1" in line


@pytest.fixture
def claim_of_worker(tmp_path, monkeypatch):
    """Return a function that claims a fit as a process does that the script has started for it."""

    def create(parent, **given):
        monkeypatch.setattr(claimant, "parent_process", lambda: SimpleNamespace(pid=parent))
        run, messages = open_run(tmp_path / "run", clock(), ONE, fit(**given), spawned=True)
        return run, run.claim_fit(fit(**given)), messages

    return create


@pytest.mark.parametrize("how", ["manually", "resume", "supervised"])
def test_fits_in_processes_of_a_script_belong_to_one_run(how, claim_of_worker, monkeypatch, tmp_path):
    if how == "supervised":
        set_supervisor(monkeypatch, 1)
    elif how == "resume":
        monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    for number in range(3):
        run, claimed, messages = claim_of_worker(1)
        assert (run.path, run.attempt, claimed.number, claimed.continuing) == (tmp_path / "run", 1, number, False)
        assert messages == []
        end(run, "started", *([] if number == 1 else ["finished"]))
    if how == "supervised":
        set_supervisor(monkeypatch, 2)
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    for number in range(3):  # the script is started again
        run, claimed, _ = claim_of_worker(os.getpid())
        assert (run.attempt, claimed.number, claimed.continuing) == (2, number, True)
        end(run, "started", "finished")


def test_fit_in_a_process_of_a_script_joins_the_run_that_the_script_has_locked(claim, claim_of_worker):
    run, first, _ = claim()
    write(run, "started", "finished")
    worker, second, messages = claim_of_worker(os.getpid())
    assert (worker.path, first.number, second.number, messages) == (run.path, 0, 1, [])
    end(worker, "started", "finished")
    third = run.claim_fit(fit())
    assert third.number == 2
    write(run, "started")
    numbers = [record["seq"] for record in read_records(run.path)]
    assert numbers == sorted(set(numbers))


def test_concurrent_trainings_use_separate_run_directories(claim, tmp_path):
    first, _, _ = claim()
    second, _, messages = claim()
    third, _, _ = claim(OTHER)
    assert first.path == tmp_path / "run"
    assert second.path == tmp_path / "run" / "runs" / ONE.name
    assert third.path == tmp_path / "run" / "runs" / OTHER.name
    assert "is already running in" in messages[0]
    assert "this training uses its own run directory" in messages[0]


def test_running_run_is_not_continued_by_a_second_process(claim, monkeypatch):
    run, _, _ = claim()
    write(run, "started")
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    with pytest.raises(RunIsAliveError, match="is already running in"):
        claim()
    assert claim(needs_state=False)[0].path != run.path  # a run that is only metered is not refused


def test_run_directory_that_was_renamed_after_the_supervisor_had_started_is_an_error(tmp_path, monkeypatch):
    home = tmp_path / "run"
    for name in ("SUPERVISED", "RESUME"):
        monkeypatch.setenv(f"LIGHTNING_GREEN_{name}", "1")
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(home))
    first_states.begin_process()
    with pytest.raises(HomeGoneError, match="was removed or renamed"):
        open_run(home, clock())
    assert not home.exists()


def test_second_training_of_an_attempt_starts_after_the_first_has_finished(claim, monkeypatch):
    set_supervisor(monkeypatch, 1)
    first, _, _ = claim()
    end(first, "started", "finished", cleanly=True)
    second, claimed, _ = claim()
    assert second.path != first.path
    assert not claimed.continuing
    end(second, "started", "paused")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again, claimed, _ = claim()  # torchrun has restarted the worker
    assert again.path == second.path
    assert claimed.continuing
    end(again, "started", "paused")
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT")

    set_supervisor(monkeypatch, 2)
    assert claim()[0].path == first.path  # in the order of the first attempt
    assert claim()[0].path == second.path


def test_unfinished_training_is_not_continued_by_the_next_one_of_the_same_attempt(claim, monkeypatch):
    set_supervisor(monkeypatch, 1)
    first, _, _ = claim()
    end(first, "started", "failed")
    second, claimed, _ = claim()
    assert second.path != first.path
    assert not claimed.continuing
    end(second, "started")
    set_supervisor(monkeypatch, 2)
    assert claim()[0].path == first.path


def test_run_of_the_same_content_is_continued(claim, monkeypatch):
    set_supervisor(monkeypatch, 1)
    opened = {lr: claim(identity=fit(lr))[0] for lr in (0.1, 0.2, 0.3)}  # concurrently
    assert len({run.path for run in opened.values()}) == 3
    for run in opened.values():
        end(run, "started", "paused")
    set_supervisor(monkeypatch, 2)
    for lr in (0.3, 0.1, 0.2):
        run, claimed, _ = claim(identity=fit(lr))
        assert run.path == opened[lr].path
        assert claimed.continuing


def test_different_content_under_the_same_supervisor_is_another_training(claim, monkeypatch):
    set_supervisor(monkeypatch, 1)
    first, _, _ = claim()
    end(first, "started")
    set_supervisor(monkeypatch, 2)
    second, claimed, _ = claim(identity=fit(lr=0.5))
    assert second.path != first.path
    assert not claimed.continuing


def test_different_content_under_another_supervisor_is_refused(claim, monkeypatch):
    set_supervisor(monkeypatch, 1)
    first, _, _ = claim()
    end(first, "started", "paused")
    set_supervisor(monkeypatch, 1, session="t")
    monkeypatch.setattr("lightning_green.run.claims.UNDECIDED_SECONDS", 0.0)
    with pytest.raises(OtherTrainingError, match=r"hparams\.lr: 0\.1 then, 0\.5 now"):
        claim(identity=fit(lr=0.5))


def test_different_environment_variables_are_refused_after_a_wait(claim, monkeypatch):
    set_supervisor(monkeypatch, 1)
    first, _, _ = claim()
    first.folder.record["environment"] = {"SEED": "aaaaaa"}
    end(first, "started", "paused")
    set_supervisor(monkeypatch, 2)
    monkeypatch.setattr("lightning_green.run.claims.UNDECIDED_SECONDS", 0.0)
    monkeypatch.setattr("lightning_green.run.claimant.variables_set_since", lambda supervisor: {"SEED": "bbbbbb"})
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "1")
    with pytest.raises(OtherTrainingError, match="the environment variables SEED"):
        claim()


@pytest.mark.parametrize("other", [OTHER, Invocation("/home/me/train.py", ("--lr", "0.1"), "/elsewhere")])
def test_paused_run_is_not_abandoned_for_another_invocation(claim, monkeypatch, other):
    set_supervisor(monkeypatch, 1)
    first, _, _ = claim()
    end(first, "started", "paused")
    monkeypatch.setattr("lightning_green.run.claims.UNDECIDED_SECONDS", 0.0)
    set_supervisor(monkeypatch, 2)
    with pytest.raises(OtherTrainingError, match="invocation"):
        claim(other)
    assert claim(other, needs_state=False)[0].path != first.path  # a run that is only metered is not refused
    assert claim()[0].path == first.path
    assert claim(other)[0].path != first.path  # after the paused run has been claimed


def test_changed_training_that_is_only_metered_starts_a_new_run(claim, monkeypatch):
    first, _, _ = claim(needs_state=False)
    end(first, "started", "interrupted")
    set_supervisor(monkeypatch, 1, session="t")
    run, messages = open_run(first.path, SimulatedClock(START), ONE, fit(0.5), needs_state=False)
    claimed = run.claim_fit(fit(0.5), needs_state=False)
    assert not claimed.continuing
    assert run.path != first.path
    assert (
        "belongs to another training (hparams.lr: 0.1 then, 0.5 now); this training uses its own run directory"
        in messages[0]
    )
    run.end(cleanly=False)


def test_paused_run_is_continued_without_supervisor(claim):
    first, _, _ = claim()
    second, _, _ = claim()
    end(first, "started", "finished", cleanly=True)
    end(second, "started", "paused")
    again, claimed, _ = claim()
    assert again.path == second.path
    assert claimed.continuing


def test_run_without_recorded_invocation_is_continued(claim, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path, SimulatedClock(START), 1)
    ledger.close()
    RunDirectory(tmp_path / "run").save()
    old = Ledger(tmp_path / "run", SimulatedClock(START), 1)
    old.append(make_event("started", global_step=1))
    old.append(make_event("paused", global_step=2, until=START.isoformat()))
    old.close()
    run, claimed, _ = claim()
    assert run.continuing
    assert (claimed.number, claimed.continuing) == (0, True)
