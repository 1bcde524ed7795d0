"""SIGTERM and Ctrl-C sent to real processes."""

import os
import signal
import sys
import threading
import time

import lightning.pytorch as pl
import pytest
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.connectors.signal_connector import _HandlersCompose, _SignalConnector

from lightning_green.run import signals
from lightning_green.run.signals import StopSignals, raise_stop
from tests.helpers.ledgers import read_records
from tests.helpers.processes import Process
from tests.helpers.trainers import quiet_trainer


@pytest.fixture
def stop(monkeypatch):
    """Return installed handlers over the default ones of Python. They are restored after the test."""
    monkeypatch.setattr(signals, "SECOND_SIGNAL_SECONDS", 0.05)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    handlers = StopSignals()
    handlers.install(describe=lambda: "The training state will be saved.")
    yield handlers
    handlers.restore()


def send(number):
    os.kill(os.getpid(), number)


def printed(capsys):
    """Return what the handlers have printed, which a thread does."""
    output, limit = "", time.monotonic() + 10.0
    while "Stopping" not in output and time.monotonic() < limit:
        time.sleep(0.01)
        output += capsys.readouterr().out
    return output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_sets_a_flag_and_prints_a_message(stop, capsys, number):
    assert stop.received is None
    send(number)
    assert stop.received == number.name
    output = printed(capsys)
    assert "Stopping after this batch. The training state will be saved." in output
    assert ("Ctrl-C again" in output) is (number == signal.SIGINT)


def test_message_is_true_when_no_state_can_be_saved(stop, capsys):
    stop.restore()
    stop.install(describe=lambda: "The training state is not saved.")
    send(signal.SIGTERM)
    assert "Stopping after this batch. The training state is not saved." in printed(capsys)


def test_only_the_first_signal_is_recorded_and_printed(stop, capsys):
    send(signal.SIGTERM)
    send(signal.SIGTERM)
    send(signal.SIGINT)
    assert stop.received == "SIGTERM"
    assert printed(capsys).count("Stopping") == 1
    time.sleep(0.1)
    assert "Stopping" not in capsys.readouterr().out


def test_second_ctrl_c_raises_keyboard_interrupt(stop):
    send(signal.SIGINT)
    send(signal.SIGINT)  # a terminal and a supervisor send the same signal
    time.sleep(0.06)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_second_sigterm_does_not_raise(stop):
    send(signal.SIGTERM)
    time.sleep(0.06)
    send(signal.SIGTERM)
    assert stop.received == "SIGTERM"


def test_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handlers = StopSignals()
    handlers.install()
    send(signal.SIGHUP)
    handlers.restore()
    signal.signal(signal.SIGHUP, before)
    assert handlers.received is None


def test_restore_sets_the_previous_handlers():
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


def test_handlers_of_the_script_are_called_and_that_of_lightning_is_not():
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
    assert not connector.received_sigterm  # the loops of Lightning would raise where no state can be saved


def test_ctrl_c_handler_of_the_script_is_kept(stop):
    stop.restore()
    called = []
    signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
    stop.install()
    send(signal.SIGINT)
    assert called == [signal.SIGINT]
    assert stop.received is None


@pytest.mark.parametrize(("rank", "code"), [(0, 143), (1, 0)])
def test_stop_of_spawned_processes_fails_in_the_first_one_whose_result_is_awaited(rank, code, tmp_path, monkeypatch):
    trainer = quiet_trainer(tmp_path, devices=2, strategy=DDPStrategy(start_method="spawn"))
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    with pytest.raises(SystemExit) as stopped:
        raise_stop("SIGTERM", trainer)
    assert stopped.value.code == code


def test_install_outside_the_main_thread_does_nothing():
    """Only the main thread can set handlers, so a ``fit`` in another thread has none."""
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
    """Return a function that starts a real training with steps of 20 ms, or with a fourth step that hangs."""

    def start(*words):
        command = [sys.executable, "-c", TRAINING, tmp_path, *words]
        return Process(command, tmp_path, LIGHTNING_GREEN_RUN_DIR=str(tmp_path / "run"))

    return start


def at_step(folder, step):
    return lambda: (folder / "at").exists() and int((folder / "at").read_text() or -1) >= step


@pytest.mark.slow
def test_sigterm_saves_the_state_and_calls_the_handler_of_the_script(training, tmp_path):
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
def test_second_ctrl_c_ends_a_hanging_step(training, tmp_path):
    with training("stuck") as process:
        process.until(at_step(tmp_path, 3))
        time.sleep(0.1)
        process.process.send_signal(signal.SIGINT)
        process.until(lambda: "Press Ctrl-C again to stop immediately" in process.printed)
        time.sleep(signals.SECOND_SIGNAL_SECONDS + 0.2)
        assert process.kill(signal.SIGINT) != 0
    last = read_records(tmp_path / "run")[-1]
    assert (last["event"], last["reason"]) == ("interrupted", "SIGINT: stopped at once")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
