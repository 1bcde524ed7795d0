"""Scripts without a seed draw the same in each start."""

import os
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from lightning_green.ledger.run_directory import RANDOM_STATES
from lightning_green.run import first_states
from lightning_green.run.first_states import begin_process, keep
from tests.helpers.traces import write_trace

SCRIPT = """
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset, random_split
from lightning_green import CarbonScheduler

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        print("batch", self.current_epoch, batch_idx, batch[0].flatten().tolist())
        return self.layer(batch[0] + hash(("a", "b")) % 7).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)

train, _ = random_split(TensorDataset(torch.arange(60.0).view(60, 1)), [48, 12])
print("split", sorted(train.indices), list({str(i) for i in range(9)}))
scheduler = CarbonScheduler("trace.csv", deadline="40h", hold_power=1.0, resume_cost=0.05, meter=300.0)
trainer = pl.Trainer(max_epochs=3, accelerator="cpu", callbacks=scheduler, enable_progress_bar=False, logger=False)
trainer.fit(Net(), DataLoader(train, 8, shuffle=True))
"""


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def seed(number):
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Begin a process of a supervised command with other random states, and return its first draw."""

    def begin(attempt, own_seed, **variables):
        monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(tmp_path))
        monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
        monkeypatch.setenv("LIGHTNING_GREEN_ATTEMPT", f"4f1e/{attempt}")
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        seed(own_seed)
        begin_process()
        return draw()

    return begin


def test_first_start_is_unchanged_and_later_ones_draw_the_same(start):
    seed(1)
    plain = draw()
    assert start(1, 1) == plain
    assert start(2, 2) == plain
    assert start(3, 3) == plain


def test_processes_of_one_invocation_are_distinguished_by_their_order(start):
    first, second = start(1, 1), start(1, 2)
    assert first != second
    assert (start(2, 3), start(2, 4)) == (first, second)


def test_other_arguments_are_another_process(start, monkeypatch):
    drawn = {}
    for attempt, order in enumerate((["--lr=1", "--lr=2"], ["--lr=2", "--lr=1"])):
        for number, argument in enumerate(order):
            monkeypatch.setattr("sys.argv", ["train.py", argument])
            drawn.setdefault(argument, []).append(start(attempt, 10 * attempt + number))
    assert drawn["--lr=1"][0] == drawn["--lr=1"][1]
    assert drawn["--lr=2"][0] == drawn["--lr=2"][1]
    assert drawn["--lr=1"] != drawn["--lr=2"]


def test_ranks_have_states_of_their_own(start):
    draws = [start(1, rank, LOCAL_RANK=str(rank)) for rank in range(2)]
    assert draws[0] != draws[1]
    assert [start(2, 5, LOCAL_RANK=str(rank)) for rank in (1, 0)] == draws[::-1]


def test_restart_by_torchrun_is_another_start_of_the_same_processes(start):
    drawn = [start(1, count + 1, TORCHELASTIC_RESTART_COUNT=str(count)) for count in range(3)]
    assert drawn[0] == drawn[1] == drawn[2]


def test_scripts_of_one_name_have_states_of_their_own(start, monkeypatch):
    draws = []
    for number, script in enumerate(["a/train.py", "b/train.py"]):
        monkeypatch.setattr("sys.argv", [script])
        draws.append(start(number, number))
    assert draws[0] != draws[1]
    monkeypatch.setattr("sys.argv", ["a/train.py"])
    assert start(2, 5) == draws[0]


def test_claims_of_earlier_attempts_are_deleted(start, tmp_path):
    for attempt in range(5):
        start(attempt, attempt)
    assert len(list((tmp_path / RANDOM_STATES).iterdir())) == 2


def test_damaged_file_is_not_used(start, tmp_path, caplog):
    start(1, 1)
    (file,) = (tmp_path / RANDOM_STATES).glob("*.pt")
    file.write_bytes(b"damaged")
    seed(2)
    plain = draw()
    assert start(2, 2) == plain
    assert "The random states of the first start are not used" in caplog.text


def test_start_without_a_directory_is_recorded_with_its_run(start, tmp_path, monkeypatch):
    monkeypatch.delenv("LIGHTNING_GREEN_RUN_DIR", raising=False)
    monkeypatch.setattr(first_states, "_unwritten", None)
    seed(1)
    begin_process()
    plain = draw()
    keep(tmp_path)
    keep(tmp_path / "of the second run of this process")
    assert start(1, 2) == plain
    assert not (tmp_path / "of the second run of this process").exists()


def test_variables_and_arguments_that_change_after_the_begin_do_not_matter(start, tmp_path, monkeypatch):
    monkeypatch.delenv("LIGHTNING_GREEN_RUN_DIR", raising=False)
    monkeypatch.setattr(first_states, "_unwritten", None)
    monkeypatch.setattr("sys.argv", ["train.py", "--lr=1"])
    seed(1)
    begin_process()
    plain = draw()
    with monkeypatch.context() as later:  # Lightning sets the variables in rank 0 when it starts the other ranks
        later.setenv("NODE_RANK", "0")
        later.setenv("LOCAL_RANK", "0")
        later.setattr("sys.argv", ["train.py"])
        keep(tmp_path)
    assert start(1, 2) == plain


@pytest.mark.slow
def test_random_split_without_a_seed_continues(tmp_path):
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    write_trace(tmp_path / "trace.csv", [50.0] + [600.0] * 4 + [50.0] * 44)
    simulated = "simulated:start=2024-05-02T00:00:00+00:00,batch=600,checkpoint=0,restart=0"
    run = [sys.executable, "-m", "lightning_green", "run", "--run-dir", "run", "--clock", simulated, "--"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    done = subprocess.run(
        [*run, sys.executable, "train.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    splits = [line for line in lines if line.startswith("split")]
    assert len(splits) == 2
    assert splits[0] == splits[1]
    (train,) = {line.split("[")[1].split("]")[0] for line in splits}
    epochs = {}
    for line in lines:
        if line.startswith("batch"):
            _, epoch, _, *numbers = line.replace("[", "").replace("]", "").replace(",", "").split()
            epochs.setdefault(epoch, []).extend(int(float(number)) for number in numbers)
    indices = [int(number) for number in train.split(", ")]
    assert [sorted(epochs[epoch]) for epoch in "012"] == [indices] * 3
