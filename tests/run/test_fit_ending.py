"""How a fit ends, and what its ledger contains then."""

import signal
from contextlib import suppress

import lightning.pytorch as pl
import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_green.ledger.events import Paused
from lightning_green.run import loggers
from lightning_green.run.fit_ending import FitStage
from lightning_green.strategies.control_group import Command
from lightning_green.supervisor.launchers import RunPausedExit
from tests.callbacks.green_kit import events, tracker, train
from tests.helpers.ledgers import read_records
from tests.helpers.open_fits import open_fit
from tests.helpers.scripted_ranks import ScriptedRanks
from tests.helpers.sessions import START


@pytest.fixture
def ending(opened, tmp_path):
    """Return the ending of a fit that trains, on one of two ranks."""
    session, _ = opened()
    ending = open_fit(session, tmp_path, ScriptedRanks()).ending
    ending.stage = FitStage.TRAINING
    return ending


def last(folder):
    return read_records(folder / "run")[-1]


def names(folder):
    return [record["event"] for record in read_records(folder / "run")]


def test_planned_exit_saves_the_state_first_and_raises_the_exit(ending, tmp_path):
    with pytest.raises(RunPausedExit) as exited:
        ending.exit_until("batch", Paused(until=START, reason="dirty now"))
    assert exited.value.code == 75
    assert ending.state.calls == [("save", "batch", "exit")]
    paused = read_records(tmp_path / "run")[1]
    assert (paused["event"], paused["until"], paused["reason"]) == ("paused", START.isoformat(), "dirty now")
    assert ending.ranks.sent == [(Command.EXIT,)]
    assert ending.stage is FitStage.CLOSED


def test_exit_without_a_saved_state_does_not_happen(ending, tmp_path):
    ending.state.saves = False
    ending.exit_until("batch", Paused(until=START))
    assert names(tmp_path) == ["started"]
    assert ending.ranks.sent == []
    assert ending.stage is FitStage.TRAINING


@pytest.mark.parametrize("saves", [True, False])
def test_exit_is_announced_only_if_the_state_is_saved(ending, caplog, saves):
    caplog.set_level("INFO")
    ending.state.saves = saves
    with suppress(RunPausedExit):
        ending.exit_until("batch", Paused(until=START), "exiting until noon")
    assert ("exiting until noon" in caplog.text) is saves


def test_failure_names_the_lost_rank(ending, tmp_path, caplog):
    ending.ranks.describe_lost = lambda error: "Rank 1 is lost: process 7 on node2 has ended"
    ending.fail(RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer"))
    assert last(tmp_path)["reason"].startswith("Rank 1 is lost: process 7 on node2 has ended: RuntimeError: [gloo")
    assert "Rank 1 is lost: process 7 on node2 has ended. The training has stopped." in caplog.text


def test_exit_is_no_failure_when_lightning_reports_its_exception(ending, tmp_path):
    with pytest.raises(RunPausedExit) as exited:
        ending.exit_until("batch", Paused(until=START))
    ending.fail(exited.value)
    ending.session.run.end(cleanly=True)
    assert names(tmp_path) == ["started", "paused", "sample"]  # the script has not ended


def fail(*_):
    raise RuntimeError("the run is finished")


@pytest.mark.parametrize("name", ["log_to_all", "flush", "summarize", "mark_preempting", "finish_experiments"])
def test_logger_that_raises_does_not_turn_an_exit_into_a_failure(ending, monkeypatch, caplog, name):
    """As W&B does if `teardown` of the script has finished the run, and others on a full disk."""
    monkeypatch.setattr(loggers, name, fail)
    with pytest.raises(RunPausedExit):
        ending.exit_until("batch", Paused(reason="a plan", until=START))
    assert ending.state.calls == [("save", "batch", "exit")]
    assert "A logger raised RuntimeError: the run is finished" in caplog.text


def test_logger_that_raises_does_not_prevent_that_a_signal_saves(ending, monkeypatch, caplog):
    monkeypatch.setattr(loggers, "flush", fail)
    with pytest.raises(SIGTERMException):
        ending.interrupt("batch", "SIGTERM")
    assert ending.state.calls == [("save", "batch", "SIGTERM")]
    assert "A logger raised RuntimeError: the run is finished" in caplog.text


@pytest.mark.parametrize(
    ("saves", "how"), [(True, "SIGTERM: saved at step 0"), (False, "SIGTERM: stopped, with nothing saved, at step 0")]
)
def test_signal_saves_and_stops_all_ranks(ending, tmp_path, saves, how):
    ending.state.saves = saves
    with pytest.raises(SIGTERMException):
        ending.interrupt("epoch", "SIGTERM")
    assert ending.state.calls == [("save", "epoch", "SIGTERM")]
    assert (last(tmp_path)["event"], last(tmp_path)["signal"], last(tmp_path)["reason"]) == (
        "interrupted",
        "SIGTERM",
        how,
    )
    assert ending.ranks.sent == [(Command.INTERRUPT, int(signal.SIGTERM))]


@pytest.mark.parametrize(("saves", "supervised", "printed"), [(True, "", True), (False, "", False), (True, "1", False)])
def test_command_that_continues_is_printed_unless_a_supervisor_does(
    ending, tmp_path, monkeypatch, caplog, saves, supervised, printed
):
    monkeypatch.setattr("sys.orig_argv", ["python", "train.py", "--name", "two words"])
    if supervised:
        monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", supervised)
    ending.state.saves = saves
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt):
        ending.interrupt("batch", "SIGINT")
    command = f"lightning-green run --run-dir {tmp_path / 'run'} -- python train.py --name 'two words'"
    assert (f"Saved at step 0. To continue: {command}" in caplog.text) is printed


def test_command_is_printed_if_an_earlier_state_can_be_continued(ending, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("sys.orig_argv", ["python", "train.py"])
    ending.state.saves, ending.state.has_checkpoint = False, True
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt):
        ending.interrupt("batch", "SIGINT")
    assert f"Stopped at step 0. To continue: lightning-green run --run-dir {tmp_path / 'run'}" in caplog.text


def test_ctrl_c_raises_keyboard_interrupt(ending):
    with pytest.raises(KeyboardInterrupt):
        ending.interrupt("batch", "SIGINT")


@pytest.mark.parametrize(
    ("command", "number", "error"),
    [
        (Command.EXIT, 0, RunPausedExit),
        (Command.INTERRUPT, 2, KeyboardInterrupt),
        (Command.INTERRUPT, 15, SIGTERMException),
    ],
)
def test_other_rank_ends_as_rank_zero_does(ending, command, number, error):
    ending.ranks.rank = 1
    with pytest.raises(error) as raised:
        ending.follow(command, number)
    assert ending.stage is FitStage.CLOSED
    if command == Command.EXIT:
        assert raised.value.code == 0  # Lightning kills rank 0 when another rank fails


def test_finished_fit_is_recorded_once(ending, tmp_path):
    ending.finish()
    ending.finish()
    assert names(tmp_path) == ["started", "finished"]
    assert (last(tmp_path)["reason"], "again" in last(tmp_path)) == ("0 steps done", False)


def test_failure_is_recorded_with_a_digest_of_its_traceback(ending, tmp_path):
    ending.thread = "worker"
    ending.fail(RuntimeError("x" * 600))
    record = last(tmp_path)
    assert (record["event"], record["thread"], len(record["traceback"])) == ("failed", "worker", 16)
    assert record["reason"] == f"RuntimeError: {'x' * 500}"
    ending.session.run.end(cleanly=True)
    assert names(tmp_path)[-1] == "ended"


@pytest.mark.parametrize(("error", "name"), [(KeyboardInterrupt(), "SIGINT"), (SIGTERMException(), "SIGTERM")])
def test_stop_inside_a_hook_is_an_interruption(ending, tmp_path, error, name):
    ending.fail(error)
    assert (last(tmp_path)["event"], last(tmp_path)["reason"]) == ("interrupted", f"{name}: stopped at once")
    ending.session.run.end(cleanly=True)
    assert names(tmp_path)[-1] == "interrupted"


def test_failure_before_the_training_started_is_not_part_of_the_history(opened, tmp_path):
    session, _ = opened(announce=False)
    ending = open_fit(session, tmp_path).ending
    ending.fail(RuntimeError("no such data set"))
    assert names(tmp_path) == []
    assert ending.stage is FitStage.CLOSED


def test_close_undoes_the_setup_and_ends_the_session(ending):
    undone = []
    ending.undo = [lambda: undone.append(1), lambda: undone.append(2)]
    handler = signal.getsignal(signal.SIGTERM)
    ending.signals.install()
    ending.close()
    assert undone == [2, 1]
    assert signal.getsignal(signal.SIGTERM) is handler
    assert ending.session.stage.name == "ENDED"
    assert ending.session.summary() is ending.session.summary()


def test_close_ends_the_session_if_a_part_of_the_setup_cannot_be_undone(ending):
    undone = []
    ending.undo = [lambda: undone.append(1), fail]
    with pytest.raises(RuntimeError, match="the run is finished"):
        ending.close()
    assert undone == [1]
    assert ending.session.stage.name == "ENDED"


def test_final_state_is_saved_without_signal_handlers(ending):
    handler = signal.getsignal(signal.SIGTERM)
    ending.signals.install()
    ending.save_final()
    assert ending.state.calls == [("save final",)]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_failure_is_on_record_and_is_not_swallowed(tmp_path):
    class Fail(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 5:
                raise RuntimeError("the user's own code")

    with pytest.raises(RuntimeError, match="the user's own code"):
        train(tmp_path, tracker(), Fail())
    last = events(tmp_path)[-1]
    assert (last["event"], last["reason"]) == ("failed", "RuntimeError: the user's own code")
    assert last["joules"]["other"]["value"] > 0
