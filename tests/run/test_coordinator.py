"""The run of a process and the fit of a Trainer."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from lightning_green.energy.none import NoMeter
from lightning_green.ledger.nodes import Node
from lightning_green.run.coordinator import close_current_run, join_fit, nonzero_rank_session, open_run, run_home
from lightning_green.run.identity import Invocation
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import read_records
from tests.helpers.runs import ONE, OTHER, end, fit
from tests.helpers.sessions import START, advance, clock, open_session, options
from tests.helpers.trainers import RecordingModel, quiet_trainer


def trainer_in_fit(folder):
    """Return a Trainer as it is when Lightning attaches the callbacks."""
    trainer = quiet_trainer(folder)
    trainer.strategy.connect(RecordingModel())
    return trainer


def joined(trainer, callback, **given):
    return join_fit(trainer, callback, lambda: options(**given), needs_state=False)


def test_callbacks_of_a_trainer_share_one_fit(tmp_path):
    trainer = trainer_in_fit(tmp_path)
    first = joined(trainer, "first")
    assert joined(trainer, "second", meter=500.0) is first
    assert first.members == ["first", "second"]
    first.ending.close()
    second = joined(trainer, "third")
    assert second is not first
    assert [one.session.fit for one in (first, second)] == [0, 1]
    second.ending.close()


def test_callback_that_joins_again_starts_the_next_fit(tmp_path):
    trainer = trainer_in_fit(tmp_path)
    fits = [joined(trainer, "callback") for _ in range(2)]
    assert [one.session.fit for one in fits] == [0, 1]
    for one in fits:
        one.ending.close()


def test_trainers_of_a_process_share_one_run(tmp_path):
    fits = [joined(trainer_in_fit(tmp_path), "callback") for _ in range(2)]
    assert fits[0].session.run is fits[1].session.run
    assert [one.session.fit for one in fits] == [0, 1]
    other = joined(trainer_in_fit(tmp_path / "other"), "callback")
    assert other.session.run is not fits[0].session.run
    for one in (*fits, other):
        one.ending.close()


def test_closed_run_has_ended_and_the_next_fit_starts_another(tmp_path):
    first = joined(trainer_in_fit(tmp_path), "callback")
    path = first.session.path
    first.ending.close()
    close_current_run()
    assert [record["event"] for record in read_records(path)] == ["ended"]
    second = joined(trainer_in_fit(tmp_path), "callback")
    assert second.session.run is not first.session.run
    second.ending.close()


def test_directory_is_below_the_root_of_the_trainer_or_given_by_the_variable(tmp_path, monkeypatch):
    trainer = SimpleNamespace(default_root_dir=str(tmp_path))
    assert run_home(trainer, ONE) == tmp_path / "lightning_green" / ONE.name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", "given")
    assert run_home(trainer, ONE) == tmp_path / "given"


def test_simulated_clock_of_a_second_run_starts_at_the_end_of_the_first(tmp_path):
    run, _ = open_run(tmp_path, clock(), ONE, fit())
    run.claim_fit(fit())
    run.clock.sleep(3600)
    end(run, "started", "finished", cleanly=True)
    again, _ = open_run(tmp_path, clock(), OTHER, fit())
    assert not again.continuing
    assert again.clock.now() == START + timedelta(hours=1)
    again.end(cleanly=False)


def test_unusable_directory_with_a_saved_state_raises(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "fit0-final.ckpt").touch()
    (tmp_path / "run.json").write_text("[1")
    invocation = Invocation("/home/me/train.py", (), "/home/me")
    with pytest.raises(ValueError, match="Expecting"):
        open_run(tmp_path, clock(), invocation, fit(), needs_state=True)
    metered, _ = open_run(tmp_path, clock(), invocation, fit(), needs_state=False)
    assert metered.folder is None
    metered.end(cleanly=True)


def test_first_process_of_another_node_measures_energy_and_reads_no_grid():
    simulated = clock()
    session = nonzero_rank_session(Node(1, 2, 0), options(grid=100.0, zone="DE"), simulated)
    assert session.meter.watts == {"other": 300.0}
    assert (session.grid, session.ledger, session.clock) == (None, None, simulated)


@pytest.mark.parametrize("node", [Node(0, 1, 1), Node(0, 2, 1), Node(1, 2, 1)])
def test_further_processes_of_a_node_neither_measure_nor_write(node):
    session = nonzero_rank_session(node, options(grid=100.0), clock())
    assert isinstance(session.meter, NoMeter)
    assert (session.grid, session.ledger) == (None, None)
    assert isinstance(session.clock, SystemClock)


def test_directory_that_cannot_be_created(tmp_path, caplog):
    (tmp_path / "file").touch()
    run, printed = open_session(tmp_path / "file" / "run", options(grid=100.0))
    run.start()
    run.announce()
    advance(run, 6)
    assert printed == []
    assert run.folder is None
    assert "cannot be used (Not a directory). Training continues without a ledger" in caplog.text
    assert "LIGHTNING_GREEN_RUN_DIR" in caplog.text
    assert run.summary()["energy/kwh"] == pytest.approx(0.3)  # in memory all the same
    assert run.summary()["carbon/gco2e"] == pytest.approx(30.0)
    run.end()
    run.run.end(cleanly=True)


@pytest.mark.parametrize("content", ['{"schema": 1, "run', "", "[1"])
def test_damaged_record_is_kept_and_training_continues(tmp_path, caplog, content):
    (tmp_path / "run.json").write_text(content)
    run, _ = open_session(tmp_path, options())
    assert run.folder is None
    assert "Training continues without a ledger" in caplog.text
    assert (tmp_path / "run.json").read_text() == content
    run.end()
    run.run.end(cleanly=True)
