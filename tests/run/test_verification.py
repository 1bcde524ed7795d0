"""The check that `CarbonScheduler(verify=True)` starts during a training."""

import errno
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from lightning_green import CarbonScheduler, RunPausedExit
from lightning_green.run import verification
from lightning_green.run.coordinator import close_current_run
from lightning_green.run.identity import Invocation
from lightning_green.run.pause_rule import PauseAt, PauseRule, write_check
from lightning_green.run.verification import command_of_process
from lightning_green.supervisor.command import Command, write_command
from lightning_green.utilities.clock import SystemClock
from tests.callbacks.green_kit import clock, events, tracker, train
from tests.helpers.traces import write_trace

SCRIPT = """
import sys
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from lightning_green import CarbonScheduler

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.scale = (n for n in range(1, 1000)) if sys.argv[1] == "generator" else None

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        return loss * next(self.scale) if sys.argv[1] == "generator" else loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)

pl.seed_everything(0, workers=True)
data = DataLoader(TensorDataset(torch.randn(48, 4)), 4, shuffle=True)
scheduler = CarbonScheduler(
    "trace.csv", deadline="40h", hold_power=1.0, resume_cost=0.05, meter=300.0, verify=sys.argv[2] == "verify"
)
model = Net()
pl.Trainer(max_epochs=3, accelerator="cpu", callbacks=scheduler, enable_progress_bar=False).fit(model, data)
torch.save(model.state_dict(), sys.argv[3])
"""


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trace(tmp_path):
    return write_trace(tmp_path / "trace.csv", [600.0] * 4 + [50.0] * 44)


def start_with(command, monkeypatch):
    """Set what the supervisor passes to a process of its command."""
    for name, value in command.to_environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Make the test process the training of a supervised command."""

    def supervised(*words):
        home = tmp_path / "home"
        home.mkdir()
        start_with(Command(words, str(tmp_path)), monkeypatch)
        monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
        monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(home))

    return supervised


def fit(folder, trace, **options):
    """Train with a verified scheduler that would exit at once; return whether it did."""
    given = {"deadline": "20h", "hold_power": 1.0, "resume_cost": 0.05, "meter": 300.0, "clock": clock(), **options}
    try:
        train(folder / "training", CarbonScheduler(trace, verify=True, **given))
    except RunPausedExit:
        return True
    finally:
        close_current_run()
    return False


@pytest.mark.parametrize(("at", "epochs"), [(PauseAt.BATCH, None), (PauseAt.EPOCH, {(1, 0)}), (PauseAt.NEVER, set())])
def test_recorded_check_of_the_same_script_applies_at_once(tmp_path, trace, command, at, epochs):
    (tmp_path / "train.py").touch()
    command("python", "train.py")
    write_check(["python", "train.py"], PauseRule(at, "" if at is PauseAt.BATCH else "a counter"))
    assert fit(tmp_path, trace) == (at is not PauseAt.NEVER)
    if epochs is not None:
        assert {tuple(record["position"]) for record in events(tmp_path, "checkpoint")} == epochs


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param(
            ["python", "missing.py"], "The command failed with exit code 2 (uninterrupted)", marks=pytest.mark.slow
        ),
        pytest.param(["python", "-c", "pass"], "No `Trainer.fit` was seen", marks=pytest.mark.slow),
        (["no-such-program"], "The command cannot be started"),
    ],
)
def test_script_that_cannot_be_checked_is_not_left(tmp_path, trace, command, caplog, words, reason):
    command(*words)
    assert not fit(tmp_path, trace)
    assert f"The run does not exit: the check of the script has no answer: {reason}" in caplog.text
    assert any(reason in record["reason"] for record in events(tmp_path, "warning"))
    assert events(tmp_path, "paused") == []


def test_further_training_of_a_command_is_not_checked(tmp_path, trace, command, monkeypatch, caplog):
    """The check would run all trainings of the command, and stop the first one."""
    command("bash", "sweep.sh")
    monkeypatch.setattr("sys.argv", ["train.py", "--lr=1"])
    train(tmp_path / "first", tracker())
    close_current_run()
    monkeypatch.setattr("sys.argv", ["train.py", "--lr=2"])
    assert not fit(tmp_path, trace)
    assert list((tmp_path / "home" / "runs").glob("*/run.json"))
    assert "the command starts several trainings, and a check stops only the first one" in caplog.text


def test_process_without_a_command_is_not_left(tmp_path, trace, monkeypatch, caplog):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(tmp_path))
    assert command_of_process() is None
    assert not fit(tmp_path, trace)
    assert "no single command starts this process" in caplog.text


def test_check_without_a_working_directory_does_not_stop_the_training(tmp_path, trace, command, monkeypatch, caplog):
    command("python", "train.py")
    start_with(Command(("python", "train.py"), str(tmp_path / "missing")), monkeypatch)
    assert not fit(tmp_path, trace)
    assert "the check of the script could not be started: No such file or directory" in caplog.text


def test_check_on_a_full_disk_does_not_stop_the_training(tmp_path, trace, command, monkeypatch, caplog):
    def full(**options):
        raise OSError(errno.ENOSPC, "No space left on device")

    command("python", "train.py")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    assert not fit(tmp_path, trace)
    assert "the check of the script could not be started: No space left on device" in caplog.text


@pytest.mark.slow
def test_check_without_its_outputs_does_not_stop_the_training(tmp_path, trace, command, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command("sh", "-c", f"rm -r {tmp_path}/lightning_green_verify_*")
    assert not fit(tmp_path, trace)
    assert "the check of the script has no answer: it ended with exit code 2" in caplog.text


def test_check_ends_with_the_fit(tmp_path, trace, command, monkeypatch):
    pid = tmp_path / "pid"
    command(sys.executable, "-c", f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    waits = iter([0.05] * 1000)

    def wait_for_check(trainer):
        while not (pid.exists() and pid.read_text()) and next(waits, None) is not None:
            time.sleep(0.05)

    given = {"deadline": "20h", "hold_power": 1.0, "resume_cost": 0.05, "meter": 300.0, "clock": SystemClock()}
    train(
        tmp_path / "training",
        CarbonScheduler(trace, verify=True, **given),
        LambdaCallback(on_train_end=lambda trainer, module: wait_for_check(trainer)),
    )
    close_current_run()
    assert pid.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert events(tmp_path, "paused") == []


@pytest.mark.distributed
@pytest.mark.slow
def test_several_processes_cannot_be_verified(tmp_path, trace):
    script = SCRIPT.replace('accelerator="cpu"', 'accelerator="cpu", devices=2, strategy="ddp"')
    (tmp_path / "train.py").write_text(script)
    words = [sys.executable, "train.py", "plain", "verify", "run.pt"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "`verify` should be False in a training of several processes, here 2" in done.stderr


def test_command_is_that_of_the_supervisor_or_of_this_process(tmp_path, command, monkeypatch):
    assert os.getcwd() != Invocation.of_process().directory  # as after `os.chdir` in a script
    assert command_of_process() == Command(tuple(sys.orig_argv), Invocation.of_process().directory)
    command("python", "train.py")
    assert command_of_process() == Command(("python", "train.py"), str(tmp_path))


def test_command_in_the_run_directory_is_not_executed(tmp_path, command, monkeypatch):
    command("python", "train.py")
    write_command(tmp_path / "home", Command(("sh", "-c", "evil"), str(tmp_path)), None)
    assert command_of_process() == Command(("python", "train.py"), str(tmp_path))
    monkeypatch.delenv("LIGHTNING_GREEN_COMMAND")
    assert command_of_process() is None


@pytest.mark.parametrize(
    ("result", "exits"),
    [
        ({"pause_at": "batch", "reason": ""}, True),
        ({"pause_at": "never", "reason": "a counter"}, False),
        ({"pause_at": None, "reason": "", "trainings": 3}, False),
    ],
)
def test_result_of_a_check_counts_even_if_it_could_not_be_recorded(
    tmp_path, trace, command, monkeypatch, result, exits
):
    command("python", "train.py")
    script = f"print({json.dumps(result)!r})"
    monkeypatch.setattr(verification, "_CHECK", (sys.executable, "-c", script))
    assert fit(tmp_path, trace) == exits


def test_changes_that_remain_after_a_check_are_reported(tmp_path, trace, command, monkeypatch, caplog):
    command("python", "train.py")
    result = {"pause_at": "never", "reason": "a counter", "loggers": ["NeptuneLogger"], "linked": [*"abcdefg"]}
    monkeypatch.setattr(verification, "_CHECK", (sys.executable, "-c", f"print({json.dumps(result)!r})"))
    assert not fit(tmp_path, trace)
    reasons = " ".join(record["reason"] for record in events(tmp_path, "warning"))
    for text in (caplog.text, reasons):
        assert "logged as usual with NeptuneLogger" in text
        assert "what its short runs wrote there remains: a, b, c, d, e and 2 more." in text


@pytest.mark.sampled(every=2)
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "generator"])
def test_run_exits_only_if_the_check_finds_the_script_exact(tmp_path, trace, kind):
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    straight = [sys.executable, "train.py", kind, "no", "straight.pt"]
    simulated = "simulated:start=2024-05-02T00:00:00+00:00,batch=600,checkpoint=0,restart=0"
    subprocess.run(straight, env={**environment, "LIGHTNING_GREEN_CLOCK": simulated}, check=True, capture_output=True)
    supervisor = [sys.executable, "-m", "lightning_green", "run", "--run-dir", "run", "--clock", simulated, "--"]
    training = [sys.executable, "train.py", kind, "verify", "run.pt"]
    done = subprocess.run([*supervisor, *training], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for path in Path("run").rglob("ledger.*.jsonl") for line in path.open()]
    paused = [record for record in records if record["event"] == "paused"]
    assert bool(paused) == (kind == "plain"), done.stderr
    if kind == "plain":
        assert "the script resumes exactly" in done.stderr
    else:
        assert "The run is metered, and neither paused nor saved: after it was stopped" in done.stderr
    torch.testing.assert_close(torch.load("run.pt"), torch.load("straight.pt"), rtol=0, atol=0)
