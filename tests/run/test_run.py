"""Which run a process claims, and which fit of it."""

import threading
from datetime import datetime, timezone

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory, RunIsAliveError
from lightning_green.run.coordinator import open_run
from lightning_green.run.identity import Invocation
from lightning_green.run.run import FitIdentity, OtherTrainingError
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.ledgers import make_event, read_records

START = datetime(2024, 5, 2, tzinfo=timezone.utc)
ONE, OTHER = (Invocation("/home/me/train.py", ("--lr", lr), "/home/me") for lr in ("0.1", "0.2"))


def fit(lr=0.1, weights="w", thread=""):
    return FitIdentity({"hparams": {"lr": lr}}, weights, thread)


@pytest.fixture
def claim(tmp_path):
    """Return a function that claims a run in ``tmp_path/run`` and its first fit; all are ended at the end."""
    runs = []

    def claim_it(invocation=ONE, identity=None, needs_state=True):
        identity = fit() if identity is None else identity
        run, messages = open_run(tmp_path / "run", SimulatedClock(START), invocation, identity, needs_state)
        runs.append(run)
        return run, run.claim_fit(identity), messages

    yield claim_it
    for run in runs:
        run.end(cleanly=False)


def write(run, *events, fit=0):
    for event in events:
        run.ledger.append(make_event(event, fit=fit, global_step=7, until=START.isoformat()))
    run.folder.save()


def end(run, *events, cleanly=False):
    write(run, *events)
    run.end(cleanly)


def supervised(monkeypatch, attempt, session="s"):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "not a process")
    monkeypatch.setenv("LIGHTNING_GREEN_ATTEMPT", f"{session}/{attempt}")


# -- which run --------------------------------------------------------------------------------------------------------

CONTINUES = {  # the run's last state -> whether it is continued by itself, with RESUME=1, and under the supervisor
    "paused": (True, True, True),
    "interrupted": (False, True, True),
    "failed": (False, True, True),
    "started": (False, True, True),
    "finished": (False, True, True),  # its process was killed before the end of the script
    "ended": (False, False, True),  # the supervisor has put a finished one aside already
}


@pytest.mark.parametrize("event", CONTINUES)
@pytest.mark.parametrize("how", ["by hand", "resume", "supervised"])
def test_which_runs_are_continued(tmp_path, monkeypatch, claim, event, how):
    run, _, _ = claim()
    states = {"started": [], "ended": ["finished"]}.get(event, [event])
    end(run, "started", *states, cleanly=event == "ended")
    if how != "by hand":
        monkeypatch.setenv({"resume": "LIGHTNING_GREEN_RESUME", "supervised": "LIGHTNING_GREEN_SUPERVISED"}[how], "1")
    continues = CONTINUES[event][["by hand", "resume", "supervised"].index(how)]
    run, claimed, messages = claim()
    assert (run.continuing, run.attempt) == ((True, 2) if continues else (False, 1))
    assert claimed.continuing is continues
    assert (tmp_path / "run.1").exists() is not continues  # nothing that is on record is lost
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


def test_two_at_the_same_time_have_runs_of_their_own(claim, tmp_path):
    first, _, _ = claim()
    second, _, messages = claim()
    third, _, _ = claim(OTHER)
    assert first.path == tmp_path / "run"
    assert second.path == tmp_path / "run" / "runs" / ONE.name
    assert third.path == tmp_path / "run" / "runs" / OTHER.name
    assert "is already running in" in messages[0]
    assert "this training uses its own run directory" in messages[0]


def test_a_run_that_is_alive_is_not_continued_a_second_time(claim, monkeypatch):
    run, _, _ = claim()
    write(run, "started")
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    with pytest.raises(RunIsAliveError, match="is already running in"):
        claim()
    assert claim(needs_state=False)[0].path != run.path  # metering alone stops nothing


def test_the_next_of_the_same_command_line_begins_where_the_first_has_finished(claim, monkeypatch):
    supervised(monkeypatch, 1)
    first, _, _ = claim()
    end(first, "started", "finished", cleanly=True)
    second, claimed, _ = claim()
    assert second.path != first.path
    assert not claimed.continuing
    end(second, "started", "paused")
    again, claimed, _ = claim()  # a wrapper that tries again: the same one
    assert again.path == second.path
    assert claimed.continuing
    end(again, "started", "paused")

    supervised(monkeypatch, 2)
    assert claim()[0].path == first.path  # in the order of the first attempt
    assert claim()[0].path == second.path


def test_of_several_it_is_the_one_of_the_same_content(claim, monkeypatch):
    supervised(monkeypatch, 1)
    opened = {lr: claim(identity=fit(lr))[0] for lr in (0.1, 0.2, 0.3)}  # at the same time
    assert len({run.path for run in opened.values()}) == 3
    for run in opened.values():
        end(run, "started", "paused")
    supervised(monkeypatch, 2)
    for lr in (0.3, 0.1, 0.2):
        run, claimed, _ = claim(identity=fit(lr))
        assert run.path == opened[lr].path
        assert claimed.continuing


def test_in_one_session_another_content_is_another_training(claim, monkeypatch):
    supervised(monkeypatch, 1)
    first, _, _ = claim()
    end(first, "started")
    supervised(monkeypatch, 2)
    second, claimed, _ = claim(identity=fit(lr=0.5))
    assert second.path != first.path
    assert not claimed.continuing


def test_in_another_session_another_content_is_a_changed_value(claim, monkeypatch):
    supervised(monkeypatch, 1)
    first, _, _ = claim()
    end(first, "started", "paused")
    supervised(monkeypatch, 1, session="t")
    with pytest.raises(OtherTrainingError, match=r"hparams\.lr: 0\.1 then, 0\.5 now"):
        claim(identity=fit(lr=0.5))


def test_another_environment_is_in_doubt_and_then_refused(claim, monkeypatch):
    supervised(monkeypatch, 1)
    first, _, _ = claim()
    first.folder.record["environment"] = {"SEED": "aaaaaa"}
    end(first, "started", "paused")
    supervised(monkeypatch, 2)
    monkeypatch.setattr("lightning_green.run.claims.UNDECIDED_SECONDS", 0.0)
    monkeypatch.setattr("lightning_green.run.claimant.variables_set_since", lambda supervisor: {"SEED": "bbbbbb"})
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "1")
    with pytest.raises(OtherTrainingError, match="the environment variables SEED"):
        claim()


@pytest.mark.parametrize("other", [OTHER, Invocation("/home/me/train.py", ("--lr", "0.1"), "/elsewhere")])
def test_a_paused_run_is_not_abandoned_for_one_of_another_invocation(claim, monkeypatch, other):
    supervised(monkeypatch, 1)
    first, _, _ = claim()
    end(first, "started", "paused")
    monkeypatch.setattr("lightning_green.run.claims.UNDECIDED_SECONDS", 0.0)
    supervised(monkeypatch, 2)
    with pytest.raises(OtherTrainingError, match="invocation"):
        claim(other)
    assert claim(other, needs_state=False)[0].path != first.path  # metering alone is refused nothing
    assert claim()[0].path == first.path
    assert claim(other)[0].path != first.path  # once the paused one has been claimed


def test_metering_alone_of_a_changed_training_is_a_new_fit(claim, monkeypatch):
    first, _, _ = claim(needs_state=False)
    end(first, "started", "interrupted")
    supervised(monkeypatch, 1, session="t")
    run, messages = open_run(first.path, SimulatedClock(START), ONE, fit(0.5), needs_state=False)
    claimed = run.claim_fit(fit(0.5), needs_state=False)
    assert not claimed.continuing
    assert run.path != first.path
    assert "belongs to another training (hparams.lr: 0.1 then, 0.5 now); this training uses its own run directory" in messages[0]
    run.end(cleanly=False)


def test_the_paused_one_of_two_is_continued_by_hand(claim):
    first, _, _ = claim()
    second, _, _ = claim()
    end(first, "started", "finished", cleanly=True)
    end(second, "started", "paused")
    again, claimed, _ = claim()
    assert again.path == second.path
    assert claimed.continuing


def test_a_run_of_before_there_were_invocations_is_continued(claim, tmp_path, monkeypatch):
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


# -- which fit --------------------------------------------------------------------------------------------------------


@pytest.fixture
def continued(claim, monkeypatch):
    """Return a run with three finished fits and a fourth that was killed, as the next process claims it."""
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    run, _, _ = claim()
    write(run, "started", "finished")
    for number, lr in ((1, 0.2), (2, 0.1), (3, 0.4)):
        assert run.claim_fit(fit(lr, weights=f"w{number}")).number == number
        write(run, "started", *(["finished"] if number < 3 else []), fit=number)
    run.end(cleanly=False)
    return open_run(run.path, SimulatedClock(START), ONE, fit())[0]


def test_fits_are_found_by_content_and_order(continued):
    wanted = [(0.1, "w"), (0.2, "w1"), (0.1, "w2"), (0.4, "w3"), (0.5, "w4")]
    claimed = [continued.claim_fit(fit(*one)) for one in wanted]
    assert [(one.number, one.continuing) for one in claimed] == [(0, True), (1, True), (2, True), (3, True), (4, False)]
    continued.end(cleanly=False)


def test_equal_weights_at_the_start_are_preferred_and_not_required(continued):
    assert continued.claim_fit(fit(0.1, "w2")).number == 2
    assert continued.claim_fit(fit(0.1, "drawn without a seed")).number == 0
    continued.end(cleanly=False)


def test_a_fit_that_is_not_the_finished_one_is_a_new_one(continued):
    claimed = continued.claim_fit(fit(0.9))
    assert (claimed.number, claimed.continuing) == (4, False)
    assert "hparams.lr: 0.1 then, 0.9 now" in claimed.messages[0]
    continued.end(cleanly=False)


def test_a_fit_that_is_not_the_unfinished_one_is_refused_or_taken_over(continued, monkeypatch):
    for lr, weights in ((0.1, "w"), (0.2, "w1"), (0.1, "w2")):
        continued.claim_fit(fit(lr, weights))
    with pytest.raises(OtherTrainingError, match=r"hparams\.lr: 0\.4 then, 0\.5 now") as refused:
        continued.claim_fit(fit(0.5))
    assert "--fresh" in str(refused.value)
    assert "--force" in str(refused.value)
    monkeypatch.setenv("LIGHTNING_GREEN_FORCE", "1")
    claimed = continued.claim_fit(fit(0.5))
    assert (claimed.number, claimed.continuing) == (3, True)
    assert "because of --force" in claimed.messages[0]
    assert continued.folder.record["fits"]["3"]["identity"] == {"hparams": {"lr": 0.5}}
    continued.end(cleanly=False)


def test_fits_of_threads_are_told_apart_by_the_threads(claim, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    run, first, _ = claim(identity=fit(thread="a"))
    second = run.claim_fit(fit(thread="b"))
    write(run, "started")
    write(run, "started", fit=1)
    run.end(cleanly=False)
    again, _, _ = claim(identity=fit(thread="b"))
    assert (first.number, second.number) == (0, 1)
    found = {}
    threads = [
        threading.Thread(target=lambda: found.update(a=again.claim_fit(fit(thread="a")).number)),
    ]
    for thread in threads:
        thread.start()
        thread.join()
    assert found == {"a": 0}
    assert again._claimed == {0, 1}


def test_without_a_directory_fits_are_numbered_in_memory(tmp_path, caplog):
    (tmp_path / "file").touch()
    run, messages = open_run(tmp_path / "file" / "run", SimulatedClock(START), ONE, fit())
    assert (run.folder, run.ledger, messages) == (None, None, [])
    assert [run.claim_fit(fit()).number for _ in range(2)] == [0, 1]
    assert "Training continues without a ledger" in caplog.text
    run.end(cleanly=True)
