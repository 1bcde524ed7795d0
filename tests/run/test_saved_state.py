"""When the training state of a fit is saved, and what the fit is restored from."""

import logging
import os
from datetime import timedelta

import lightning.pytorch as pl
import pytest

from lightning_green import EmissionsTracker, ExactResume
from lightning_green.resume import checkpoints
from lightning_green.resume.checkpoints import STATE_KEY
from lightning_green.run.coordinator import close_current_run
from lightning_green.run.pause_rule import PauseAt, PauseRule
from lightning_green.run.saved_state import CheckpointTimer
from lightning_green.utilities.clock import SimulatedClock
from tests.callbacks import green_kit
from tests.callbacks.green_kit import BATCHES, START, WATTS, clock, events
from tests.helpers.interrupted_fits import Interrupt

HOUR = timedelta(hours=1)


def test_timer_without_a_request_is_never_due():
    simulated = SimulatedClock(START)
    timer = CheckpointTimer(simulated)
    timer.request(None)
    timer.restart()
    simulated.sleep(1e9)
    assert not timer.is_due()


@pytest.mark.parametrize("requests", [[2 * HOUR, HOUR], [HOUR, 2 * HOUR], [None, HOUR], [HOUR, None]])
def test_shortest_interval_counts(requests):
    simulated = SimulatedClock(START)
    timer = CheckpointTimer(simulated)
    for every in requests:
        timer.request(every)
    timer.restart()
    simulated.sleep(3599)
    assert not timer.is_due()
    simulated.sleep(1)
    assert timer.is_due()


def test_interval_begins_at_the_restart():
    simulated = SimulatedClock(START)
    timer = CheckpointTimer(simulated)
    timer.request(HOUR)
    simulated.sleep(7200)
    assert not timer.is_due()  # not before the fit has started
    timer.restart()
    simulated.sleep(1800)
    timer.restart()
    simulated.sleep(1800)
    assert not timer.is_due()


@pytest.fixture(autouse=True)
def simulated(monkeypatch):
    """Ten minutes a batch."""
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", clock(seconds_per_checkpoint=60.0).spec())


def train(folder, *callbacks, every=None):
    """Train two epochs of twelve batches; return the trainer and a digest of the weights."""
    return green_kit.train(folder, EmissionsTracker(meter=WATTS), ExactResume(every=every), *callbacks)


def interrupted(folder, step, every=None):
    """Train until a batch is interrupted; return the run directory."""
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(folder, Interrupt(step), every=every)
    close_current_run()
    (run,) = (folder / "lightning_green").iterdir()
    return run


def full_disk(*arguments):
    raise OSError(28, "No space left on device")


def test_checkpoint_is_recorded_with_its_reason_file_and_position(tmp_path):
    run = interrupted(tmp_path, 14, every=HOUR)
    saved = events(tmp_path, "checkpoint")
    assert [record["reason"] for record in saved] == ["periodic", "periodic", "SIGINT"]
    assert [record["position"] for record in saved] == [[0, 6], [1, 0], [1, 3]]
    assert saved[-1]["path"] == "fit0-step000000015-2.ckpt"
    assert (run / "checkpoints" / saved[-1]["path"]).exists()


def test_checkpoint_before_an_exit_is_restart_overhead(tmp_path):
    interrupted(tmp_path, 7, every=HOUR)
    phases = [record["phase"] for record in events(tmp_path, "phase")]
    assert phases == ["checkpoint", "restart"]


def test_training_continues_without_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoints, "store_checkpoint", full_disk)
    trainer, weights = train(tmp_path, every=HOUR)
    assert trainer.global_step == BATCHES
    failed = events(tmp_path, "checkpoint_failed")
    assert [record["global_step"] for record in failed] == [6, 12, 18]  # no attempt at every batch
    assert {record["phase"] for record in failed} == {"training"}
    assert "Training continues without this checkpoint. Free disk space or fix permissions." in caplog.text
    close_current_run()
    assert weights == green_kit.train(tmp_path / "without")[1]


def test_final_state_that_cannot_be_written_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "store_final", full_disk)
    train(tmp_path)
    assert [record["event"] for record in events(tmp_path)[-2:]] == ["checkpoint_failed", "finished"]


def test_older_checkpoint_is_used_if_the_newest_is_damaged(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    run = interrupted(tmp_path, 14, every=HOUR)
    newest = run / "checkpoints" / events(tmp_path, "checkpoint")[-1]["path"]
    os.truncate(newest, newest.stat().st_size // 2)
    trainer, weights = train(tmp_path)
    assert trainer.global_step == BATCHES
    assert "The checkpoint before it is used: step 12." in caplog.text
    assert "continued from step 12" in caplog.text
    close_current_run()
    assert weights == green_kit.train(tmp_path / "without")[1]


def test_finished_fit_is_restored_and_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    tracker = EmissionsTracker(meter=WATTS)
    _, weights = green_kit.train(tmp_path, tracker, ExactResume(every=None))
    tracker.session.run.stops = True  # the script is killed after this fit
    close_current_run()
    trainer, again = train(tmp_path, Interrupt(0))
    assert (again, trainer.global_step) == (weights, BATCHES)
    last = events(tmp_path, "finished")[-1]
    assert (last["again"], last["reason"]) == (True, f"{BATCHES} steps done before")


def test_state_that_cannot_be_saved_is_reported_and_the_training_is_metered(tmp_path, caplog):
    class Unplain(pl.Callback):
        def state_dict(self):
            return {"handle": object()}

    caplog.set_level(logging.INFO)
    trainer, _ = train(tmp_path, Unplain(), every=HOUR)
    assert trainer.global_step == BATCHES
    assert "The run is metered, and neither paused nor saved: " in caplog.text
    assert list((tmp_path / "lightning_green").rglob("*.ckpt")) == []
    assert events(tmp_path, "checkpoint_failed") == []  # nothing is tried
    assert events(tmp_path)[-1]["event"] == "finished"


def test_state_of_ranks_in_different_epochs_is_not_saved_where_only_epochs_are_exact(tmp_path, caplog):
    class Differ(pl.Callback):
        """Lets another rank be in the middle of an epoch whenever this one is at the end of one."""

        def on_train_start(self, trainer, pl_module):
            state = trainer._lightning_green_fit.state
            state.limits.apply(PauseRule(PauseAt.EPOCH, "a loader draws random numbers"))
            dump = state.exact.dump

            def dump_of_two(point, path=None):
                found = dump(point, path)
                found[STATE_KEY]["ranks"].append({**found[STATE_KEY]["ranks"][0], "point": "batch"})
                return found

            state.exact.dump = dump_of_two

    with caplog.at_level(logging.WARNING):
        train(tmp_path, Differ(), every=HOUR)
    assert events(tmp_path, "checkpoint") == []
    (line,) = [record.message for record in caplog.records if "different epochs" in record.message]
    assert line.startswith("The run is metered, and neither paused nor saved: the processes are in different epochs")
    assert "a loader draws random numbers" in line
