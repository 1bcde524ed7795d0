"""SIGTERM and Ctrl-C, really sent to processes."""

import os
import signal
import sys
import threading
import time

import lightning.pytorch as pl
import pytest
from lightning.pytorch.trainer.connectors.signal_connector import _HandlersCompose, _SignalConnector

from lightning_green.run import signals
from lightning_green.run.signals import StopSignals
from tests.helpers.ledgers import read_records
from tests.helpers.processes import Process


@pytest.fixture
def stop(monkeypatch):
    """Return handlers that are in place, over Python's own; the test's end takes them out."""
    monkeypatch.setattr(signals, "SECOND_SIGNAL_SECONDS", 0.05)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    handlers = StopSignals()
    handlers.install()
    yield handlers
    handlers.restore()


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_a_flag_and_nothing_else(stop, capsys, number):
    assert stop.received is None
    send(number)
    assert stop.received == number.name
    told = capsys.readouterr().out
    assert "Stopping after this batch. The training state will be saved." in told
    assert ("Ctrl-C again" in told) is (number == signal.SIGINT)


def test_the_first_one_counts_and_is_told_once(stop, capsys):
    send(signal.SIGTERM)
    send(signal.SIGTERM)
    send(signal.SIGINT)
    assert stop.received == "SIGTERM"
    assert capsys.readouterr().out.count("Stopping") == 1


def test_the_second_ctrl_c_stops_at_once(stop):
    send(signal.SIGINT)
    send(signal.SIGINT)  # a terminal and a supervisor deliver the same one
    time.sleep(0.06)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_a_second_sigterm_never_raises(stop):
    send(signal.SIGTERM)
    time.sleep(0.06)
    send(signal.SIGTERM)
    assert stop.received == "SIGTERM"


def test_what_was_there_before_is_put_back():
    def mine(number, frame):
        pass

    signal.signal(signal.SIGTERM, mine)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handlers = StopSignals()
    handlers.install()
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == handlers._on_signal
    handlers.restore()
    handlers.restore()
    assert signal.getsignal(signal.SIGTERM) is mine
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_script_s_own_handlers_are_called_and_lightning_s_is_not():
    called = []
    connector = _SignalConnector(pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
    own = [lambda number, frame: called.append(number), lambda number, frame: called.append("second")]
    signal.signal(signal.SIGTERM, _HandlersCompose([*own, connector._sigterm_handler_fn]))
    handlers = StopSignals()
    handlers.install()
    try:
        send(signal.SIGTERM)
    finally:
        handlers.restore()
    assert called == [signal.SIGTERM, "second"]
    assert handlers.received == "SIGTERM"
    assert not connector.received_sigterm  # Lightning's loops would raise where no state can be saved


def test_a_ctrl_c_handler_of_the_script_stays(stop):
    stop.restore()
    called = []
    signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
    stop.install()
    send(signal.SIGINT)
    assert called == [signal.SIGINT]
    assert stop.received is None


def test_in_another_thread_nothing_is_touched():
    """Python lets the main thread alone set handlers; a ``fit`` in another one goes without."""
    before = signal.getsignal(signal.SIGTERM)
    errors = []

    def take():
        try:
            StopSignals().install()
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert errors == []
    assert signal.getsignal(signal.SIGTERM) is before


TRAINING = """
import signal, sys, time
from pathlib import Path
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from lightning_green import ExactResume

folder = Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda number, frame: (folder / "own-handler").write_text(str(int(number))))

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, batch_idx):
        (folder / "at").write_text(str(self.global_step))
        limit = time.monotonic() + (60 if "stuck" in sys.argv and self.global_step == 3 else 0.02)
        while time.monotonic() < limit:
            time.sleep(0.01)
        return self.layer(batch[0]).mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[ExactResume()],
                     default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Net(), DataLoader(TensorDataset(torch.zeros(3000, 1))))
"""


@pytest.fixture
def training(tmp_path):
    """Return a function that starts a real training, in which each step takes 20 ms, or the fourth is stuck."""

    def start(*words):
        command = [sys.executable, "-c", TRAINING, tmp_path, *words]
        return Process(command, tmp_path, LIGHTNING_GREEN_RUN_DIR=str(tmp_path / "run"))

    return start


def at_step(folder, step):
    return lambda: (folder / "at").exists() and int((folder / "at").read_text() or -1) >= step


@pytest.mark.slow
def test_sigterm_saves_the_state_and_calls_the_script_s_handler(training, tmp_path):
    with training() as process:
        process.until(at_step(tmp_path, 3))
        process.kill(signal.SIGTERM)
    assert (tmp_path / "own-handler").read_text() == str(int(signal.SIGTERM))
    last = read_records(tmp_path / "run")[-1]
    assert (last["event"], last["signal"]) == ("interrupted", "SIGTERM")
    assert last["reason"] == f"SIGTERM: saved at step {last['global_step']}"
    (stored,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert stored.name == f"fit0-step{last['global_step']:09d}-0.ckpt"


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_step_that_is_stuck(training, tmp_path):
    with training("stuck") as process:
        process.until(at_step(tmp_path, 3))
        time.sleep(0.1)
        process.process.send_signal(signal.SIGINT)
        process.until(lambda: "Press Ctrl-C again to stop immediately" in process.told)
        time.sleep(signals.SECOND_SIGNAL_SECONDS + 0.2)
        assert process.kill(signal.SIGINT) != 0
    last = read_records(tmp_path / "run")[-1]
    assert (last["event"], last["reason"]) == ("interrupted", "SIGINT: stopped at once")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
