"""The probe in this process: short fits, their traces, and stops."""

import json
import os

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.check.differences import first_difference
from lightning_green.check.job import JOB_VARIABLE, Job, Stop
from lightning_green.ledger.run_directory import RESUME_VARIABLE, RUN_DIR_VARIABLE
from lightning_green.run.coordinator import close_current_run
from lightning_green.supervisor.launchers import RunPausedExit
from lightning_green.utilities.clock import CLOCK_VARIABLE

CLOCK = "simulated:start=2024-05-02T00:00:00+00:00,batch=1,checkpoint=0,restart=0"
STEPS = {"n": 0}


class Net(pl.LightningModule):
    def __init__(self, forgets=False):
        super().__init__()
        self.net, self.forgets = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Linear(4, 1)), forgets

    def training_step(self, batch, batch_idx):
        STEPS["n"] += 1
        loss = self.net(batch[0]).square().mean() * (STEPS["n"] if self.forgets else 1)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def train(directory, stops=(), forgets=False, callbacks=(), **options):
    """Train in this process as the processes of a check do, until nothing stops it; return the trace."""
    job = Job(directory, tuple(stops))
    job.write()
    os.environ |= {
        JOB_VARIABLE: str(directory),
        RUN_DIR_VARIABLE: str(directory / "run"),
        RESUME_VARIABLE: "1",
        CLOCK_VARIABLE: CLOCK,
    }
    for _ in range(len(stops) + 1):
        pl.seed_everything(3, verbose=False)
        STEPS["n"] = 0
        data = TensorDataset(torch.randn(64, 4))
        settings = {"max_epochs": 90, "accelerator": "cpu", "enable_progress_bar": False, "logger": False}
        trainer = pl.Trainer(
            **{**settings, "enable_model_summary": False, "default_root_dir": directory, **options},
            callbacks=list(callbacks),
        )
        try:
            trainer.fit(Net(forgets), DataLoader(data, 4, shuffle=True), DataLoader(data, 8))
        except RunPausedExit:
            close_current_run()
            continue
        close_current_run()
        break
    return job.trace()


def points(trace):
    return [tuple(record["at"]) for record in trace if record["kind"] == "point"]


@pytest.fixture(autouse=True)
def variables(monkeypatch, tmp_path):
    for name in (JOB_VARIABLE, RUN_DIR_VARIABLE, RESUME_VARIABLE, CLOCK_VARIABLE):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)


def test_fit_is_short_and_its_trace_complete(tmp_path):
    trace = train(tmp_path / "straight")
    (started,) = [record for record in trace if record["kind"] == "started"]
    assert (started["epochs"], started["batches"], started["can_save"]) == (3, 6, True)
    batches = [at for at in points(trace) if at[-1] == "batch"]
    assert batches == [(epoch, index, "batch") for epoch in range(3) for index in range(6)]
    assert sum(at[-1] == "validation" for at in points(trace)) == 3 * 2
    assert points(trace)[-1] == ("end",)
    json.dumps(trace)


def test_two_uninterrupted_runs_and_a_stopped_one_have_equal_traces(tmp_path):
    straight = train(tmp_path / "straight")
    assert first_difference(straight, train(tmp_path / "again")) is None
    stops = [Stop(0, 0, 3), Stop(0, 1, 0), Stop(0, 2, 1)]
    stopped = train(tmp_path / "stopped", stops)
    restored = [record["restored"] for record in stopped if record["kind"] == "started"]
    assert restored == [None, "step 3", "step 6", "step 13"]
    assert [record["stop"] for record in stopped if record["kind"] == "stopped"] == [one.describe() for one in stops]
    assert first_difference(straight, stopped) is None


def test_a_variable_that_is_not_restored_is_named(tmp_path):
    straight = train(tmp_path / "straight", forgets=True)
    found = first_difference(straight, train(tmp_path / "stopped", [Stop(0, 1, 2)], forgets=True))
    assert (found.what, found.where, found.after) == (
        "loss",
        "batch 2 of epoch 1",
        "stopped after batch 2 of epoch 1",
    )
    assert found.attributes == (("test_probe.py['STEPS']['n']", "8", "0"),)


def test_accumulation_windows_are_complete_before_a_stop(tmp_path):
    straight = train(tmp_path / "straight", accumulate_grad_batches=4)
    assert [record["batches"] for record in straight if record["kind"] == "started"] == [9]
    stopped = train(tmp_path / "stopped", [Stop(0, 0, 2)], accumulate_grad_batches=4)
    assert [record["step"] for record in stopped if record["kind"] == "stopped"] == [1]
    assert first_difference(straight, stopped) is None


def test_callbacks_of_the_script_neither_measure_nor_decide(tmp_path):
    green = [EmissionsTracker(grid="typical:DE"), CarbonScheduler(grid=100.0, deadline="36h", meter=50.0)]
    trace = train(tmp_path / "straight", callbacks=green)
    assert points(trace)[-1] == ("end",)
    totals = green[0].summary()
    assert totals["energy/kwh"] > 0
    assert totals["carbon/gco2e"] == pytest.approx(100.0 * totals["energy/kwh"])  # not of the grid of the script
    assert green[1].plan is None


def test_scheduled_changes_are_within_the_short_fit(tmp_path):
    schedule = pl.callbacks.GradientAccumulationScheduler({0: 1, 4: 2})
    trace = train(tmp_path / "straight", callbacks=[schedule])
    assert next(record["changes"] for record in trace if record["kind"] == "attached") == [4]
    assert next(record["epochs"] for record in trace if record["kind"] == "started") == 6


def test_training_without_checkpoints_is_reported(tmp_path):
    trace = train(tmp_path / "straight", enable_checkpointing=False)
    assert [record["can_save"] for record in trace if record["kind"] == "started"] == [False]
