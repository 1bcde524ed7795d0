"""Which fit of a run is trained next."""

import threading

import pytest

from lightning_green.run.coordinator import open_run
from lightning_green.run.run import OtherTrainingError
from lightning_green.utilities.clock import SimulatedClock
from tests.helpers.runs import ONE, START, fit, write


@pytest.fixture
def continued(claim, monkeypatch):
    """Return a run with three finished fits and a killed fourth one, claimed by the next process."""
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


def test_equal_initial_weights_are_preferred_but_not_required(continued):
    assert continued.claim_fit(fit(0.1, "w2")).number == 2
    assert continued.claim_fit(fit(0.1, "drawn without a seed")).number == 0
    continued.end(cleanly=False)


def test_fit_that_differs_from_a_finished_fit_is_new(continued):
    claimed = continued.claim_fit(fit(0.9))
    assert (claimed.number, claimed.continuing) == (4, False)
    assert "hparams.lr: 0.1 then, 0.9 now" in claimed.messages[0]
    continued.end(cleanly=False)


def test_fit_that_differs_from_an_unfinished_fit_is_refused_without_force(continued, monkeypatch):
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


def test_concurrent_fits_are_distinguished_by_their_threads(claim, monkeypatch):
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


def test_fits_are_numbered_without_a_run_directory(tmp_path, caplog):
    (tmp_path / "file").touch()
    run, messages = open_run(tmp_path / "file" / "run", SimulatedClock(START), ONE, fit())
    assert (run.folder, run.ledger, messages) == (None, None, [])
    assert [run.claim_fit(fit()).number for _ in range(2)] == [0, 1]
    assert "Training continues without a ledger" in caplog.text
    run.end(cleanly=True)
