"""Comparison of a process with existing runs."""

from dataclasses import replace

import pytest

from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.run.candidates import Candidate
from lightning_green.run.claimant import Claimant
from lightning_green.run.run import POOL
from tests.helpers.runs import ONE, OTHER, fit


@pytest.fixture
def candidate(tmp_path):
    """Return a function that creates a run directory with a record."""

    def create(**record):
        directory = RunDirectory(tmp_path)
        directory.record |= {"invocation": ONE.to_json(), **record}
        directory.save()
        return Candidate.read(tmp_path)

    return create


def recorded(lr, weights="w"):
    return {"identity": {"hparams": {"lr": lr}}, "weights": weights}


def test_content_and_weights_are_compared_with_any_fit(candidate):
    run = candidate(fits={"0": recorded(0.1), "1": recorded(0.2, "v")})
    assert Claimant(ONE, fit(0.2)).trains_same(run)
    assert not Claimant(ONE, fit(0.3)).trains_same(run)
    assert Claimant(ONE, fit(weights="v")).starts_same(run)
    assert not Claimant(ONE, fit(weights="u")).starts_same(run)


@pytest.mark.parametrize(
    ("threads", "mine", "same"),
    [
        (["Thread-1"], "Thread-2", True),  # killed before the second thread had started its fit
        (["Thread-1"], "Thread-1", False),  # this thread has trained something else
        ([POOL], POOL, True),
        ([""], POOL, False),
        (["Thread-1", ""], "Thread-2", False),
        (["Thread-1"], "", False),
    ],
)
def test_fit_of_another_thread_belongs_to_the_run_of_the_threads(candidate, threads, mine, same):
    run = candidate(fits={str(number): {**recorded(0.1), "thread": name} for number, name in enumerate(threads)})
    assert Claimant(ONE, replace(fit(0.9), thread=mine)).trains_same(run) is same


def test_run_without_recorded_fit_can_be_any_training(candidate):
    assert Claimant(ONE, fit(0.3)).trains_same(candidate())


def test_difference_names_invocation_content_or_variables(candidate):
    run = candidate(fits={"0": recorded(0.1)}, environment={"SEED": "aaaaaa"})
    assert "invocation" in Claimant(OTHER, fit(0.5)).describe_difference(run)
    assert Claimant(ONE, fit(0.5)).describe_difference(run) == "hparams.lr: 0.1 then, 0.5 now"
    changed = Claimant(ONE, fit(0.1), variables={"SEED": "bbbbbb"})
    assert changed.describe_difference(run) == "the environment variables SEED"
    assert Claimant(ONE, fit(0.1)).differing_variables(run) == []  # unknown


@pytest.mark.parametrize(
    ("attempt", "shares_attempt", "shares_session"),
    [(None, False, False), ("s/1", True, True), ("s/2", False, True), ("t/1", False, False)],
)
def test_attempt_and_session_of_the_supervisor_are_compared(candidate, attempt, shares_attempt, shares_session):
    claimant, run = Claimant(ONE, fit(), attempt=attempt), candidate(claimed_in="s/1")
    assert claimant.shares_attempt(run) is shares_attempt
    assert claimant.shares_session(run) is shares_session


def test_run_of_the_same_attempt_is_done_unless_a_launcher_has_restarted_the_process(candidate):
    run = candidate(claimed_in="s/1")
    assert Claimant(ONE, fit(), attempt="s/1").is_done(run)
    assert not Claimant(ONE, fit(), attempt="s/1", restarted=True).is_done(run)
    assert not Claimant(ONE, fit(), attempt="s/2").is_done(run)


def test_process_is_described_by_the_variables_of_its_supervisor(monkeypatch):
    monkeypatch.delenv("LIGHTNING_GREEN_SUPERVISED", raising=False)
    monkeypatch.delenv("LIGHTNING_GREEN_ATTEMPT", raising=False)
    alone = Claimant.of_process(ONE, fit(), needs_state=False)
    assert (alone.supervised, alone.attempt, alone.variables, alone.needs_state) == (False, None, None, False)
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    monkeypatch.setenv("LIGHTNING_GREEN_ATTEMPT", "s/1")
    monkeypatch.setattr("lightning_green.run.claimant.variables_set_since", lambda supervisor: {"PID": str(supervisor)})
    supervised = Claimant.of_process(ONE, fit(), needs_state=True)
    assert (supervised.supervised, supervised.attempt, supervised.variables) == (True, "s/1", {"PID": "4711"})
