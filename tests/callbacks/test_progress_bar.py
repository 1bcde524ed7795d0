"""The field of the tracker in real trainings with a progress bar."""

import pytest
from lightning.pytorch.callbacks import Callback, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from lightning_green import RunPausedExit
from lightning_green.run.coordinator import close_current_run
from tests.callbacks.green_kit import DIRTY_THEN_CLEAN, scheduler, tracker, train
from tests.helpers.traces import write_trace

BARS = [TQDMProgressBar, RichProgressBar]


@pytest.fixture
def trace(tmp_path):
    return write_trace(tmp_path / "trace.csv", DIRTY_THEN_CLEAN)


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def watch(trace):
    """Return a tracker that goes with ``scheduler(trace)``."""
    return tracker(grid=trace, meter=300.0, clock=None)


class Lines(RichProgressBar):
    """Prints each state of the bar; a bar of Rich prints the last one only, if the output is no terminal."""

    def refresh(self, hard=False):
        super().refresh(hard)
        print(self._metric_component and self._metric_component._metrics)


@pytest.mark.parametrize("bar", [TQDMProgressBar, Lines])
def test_bar_shows_running_and_held_and_the_next_change(tmp_path, trace, bar, capfd):
    train(tmp_path, scheduler(trace, on_pause="hold"), watch(trace), bar(), enable_progress_bar=True, validate=True)
    shown = "".join(capfd.readouterr())
    assert "running 600 g/kWh, " in shown
    assert "held 600 g/kWh, " in shown
    assert "run 04:00 UTC" in shown
    assert "running 50 g/kWh, " in shown


class Metrics(Callback):
    """Records what is in the metrics of the Trainer and in a checkpoint."""

    def on_train_end(self, trainer, pl_module):
        self.names = {*trainer.callback_metrics, *trainer.logged_metrics, *trainer.progress_bar_metrics}
        self.states = trainer._checkpoint_connector.dump_checkpoint()["callbacks"]


@pytest.mark.parametrize("bar", BARS)
def test_field_is_in_no_metric_no_checkpoint_and_no_row(tmp_path, bar, capfd):
    seen, logger = Metrics(), CSVLogger(tmp_path)
    trained, _ = train(tmp_path, tracker(), seen, bar(), enable_progress_bar=True, logger=logger)
    assert "running 100 g/kWh" in "".join(capfd.readouterr())
    assert seen.names == {"loss"}
    assert not [key for key in seen.states if "Bar" in key]
    header = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert "green" not in header
    assert "get_metrics" not in trained.progress_bar_callback.__dict__


def test_argument_turns_it_off(tmp_path, capfd):
    train(tmp_path, tracker(progress_bar=False), enable_progress_bar=True)
    assert "green" not in "".join(capfd.readouterr()).replace("lightning_green", "")


@pytest.mark.parametrize("bar", BARS)
def test_resumed_training_with_the_field_ends_with_the_same_weights(tmp_path, trace, bar, capfd):
    _, uninterrupted = train(tmp_path / "whole")
    given = {"enable_progress_bar": True}
    with pytest.raises(RunPausedExit):
        train(tmp_path / "paused", scheduler(trace, on_pause="exit"), watch(trace), bar(), **given)
    close_current_run()
    states = list((tmp_path / "paused").rglob("*.ckpt"))
    assert states
    assert not any(b"get_metrics" in state.read_bytes() for state in states)
    _, weights = train(tmp_path / "paused", scheduler(trace, on_pause="hold"), watch(trace), bar(), **given)
    assert weights == uninterrupted
