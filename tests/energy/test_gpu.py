"""Measurements on a real GPU: its counter, the power of an idle process, and the energy of a step at each level."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import EmissionsTracker
from tests.helpers import resnet_step
from tests.helpers.processes import environment

ROOT = Path(__file__).parents[2]
ALLOWED = "GPU_SETTINGS_ALLOWED"  # set to 1 on a GPU whose settings the test may change
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def test_network_is_resnet50():
    net = resnet_step.resnet50()
    assert sum(parameter.numel() for parameter in net.parameters()) == 25_557_032  # He et al. (2016), 1000 classes
    steps = resnet_step.Steps("cpu", batch=2, side=64)
    before = steps.net[0].weight.clone()
    assert torch.isfinite(steps())
    assert not torch.equal(before, steps.net[0].weight)


class Vision(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = resnet_step.resnet50()

    def training_step(self, batch, batch_idx):
        images = torch.randn(64, 3, 224, 224, device=self.device)
        return self.net(images).logsumexp(1).mean() + 0.0 * batch[0].sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class Compare(pl.Callback):
    """Read the counter of the driver and the meter at the same times; stop after some time."""

    def __init__(self, tracker, seconds):
        self.tracker, self.seconds, self.readings = tracker, seconds, []

    def read(self):
        torch.cuda.synchronize()
        meter = self.tracker.session.meter
        meter.sample()
        self.readings.append((resnet_step.joules(self.gpu), meter.read()["gpu"]))

    def on_train_start(self, trainer, pl_module):
        self.gpu, self.end = resnet_step.job_gpu(), time.monotonic() + self.seconds
        self.read()

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = time.monotonic() > self.end

    def on_train_end(self, trainer, pl_module):
        self.read()


@pytest.mark.gpu
@pytest.mark.slow
@NEEDS_GPU
def test_total_of_training_matches_driver_within_one_percent(tmp_path):
    tracker = EmissionsTracker(meter="nvml", grid=400.0, zone="XX")
    compare = Compare(tracker, seconds=30.0)
    pl.Trainer(
        max_steps=100_000, callbacks=[tracker, compare], accelerator="gpu", devices=1, precision="bf16-mixed",
        logger=False, enable_progress_bar=False, enable_checkpointing=False, default_root_dir=tmp_path,
    ).fit(Vision(), DataLoader(TensorDataset(torch.ones(100_000, 1)), batch_size=1))  # fmt: skip
    (driver_before, ours_before), (driver_after, ours_after) = compare.readings
    assert ours_after.quality == "measured"
    assert ours_after.joules - ours_before.joules == pytest.approx(driver_after - driver_before, rel=0.01)
    assert tracker.summary()["energy/gpu_kwh"] * 3.6e6 == pytest.approx(ours_after.joules, rel=0.01)


@pytest.mark.gpu
@pytest.mark.slow
@NEEDS_GPU
def test_idle_process_draws_more_power_than_no_process():
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.resnet_step"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    # The context of another process on the GPU would hide the difference.
    assert found["without_context_w"] <= 1.05 * found["with_context_w"]
    assert found["with_context_w"] < 0.6 * found["training_w"]


@pytest.mark.gpu
@pytest.mark.slow
@NEEDS_GPU
def test_lower_level_reduces_energy_of_step():
    if os.environ.get(ALLOWED) != "1":
        pytest.skip(f"set {ALLOWED}=1 to let the test change the settings of the GPU")
    actuator, reason = resnet_step.settable()
    if actuator is None:
        pytest.skip(f"neither a power limit nor clocks can be set: {reason}")
    found = actuator.read_state()
    points = resnet_step.curve(actuator)
    print(json.dumps(points))
    assert len(points) >= 2
    assert min(point["step_j"] for point in points[1:]) < points[0]["step_j"]
    assert points[-1]["step_s"] >= 0.98 * points[0]["step_s"]
    assert actuator.read_state() == found
