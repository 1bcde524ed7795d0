"""Sums over nodes, precision, and use in a LightningModule."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import EmissionsTracker
from lightning_green.metrics import CarbonEmitted, EnergyConsumed, SamplesPerJoule, SoftwareCarbonIntensity
from lightning_green.utilities.clock import SimulatedClock

ROOT = Path(__file__).parents[2]

RANKS = """
import os, sys, torch.distributed as dist
from lightning_green.metrics import CarbonEmitted, EnergyConsumed, SamplesPerJoule, SoftwareCarbonIntensity
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=4)
os.environ["LOCAL_RANK"] = str(rank % 2)  # two nodes of two
energy, carbon, samples, sci = EnergyConsumed(), CarbonEmitted(), SamplesPerJoule(), SoftwareCarbonIntensity(3600, 1)
node = 1 + rank // 2
energy.update(node * 3.6e6)
carbon.update(node * 3.6e6, 100.0)
samples.update(10, node * 5.0)
sci.update(10, node * 3.6e6, 100.0, 1.0)
print(*(float(metric.compute()) for metric in (energy, carbon, samples, sci)))
dist.destroy_process_group()
"""


@pytest.mark.distributed
def test_sums_nodes_and_counts_each_node_once(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "SLURM_LOCALID")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(rank), str(tmp_path / "store")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(4)
    ]
    for rank in ranks:
        output, _ = rank.communicate(timeout=120)
        # 1 + 2 kWh; 300 g; 40 samples in 15 J; (300 g + 2 x 1 g embodied) for 40 units
        assert [float(word) for word in output.split()] == pytest.approx([3.0, 300.0, 40 / 15, 302 / 40])


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_invalid_amount_raises(bad):
    with pytest.raises(ValueError, match="`joules` should"):
        EnergyConsumed(local_rank=0).update(bad)
    with pytest.raises(ValueError, match="`intensity` should"):
        CarbonEmitted(local_rank=0).update(1.0, bad)
    with pytest.raises(ValueError, match="`pue` should"):
        CarbonEmitted(pue=bad)
    with pytest.raises(ValueError, match="`share` should"):
        SoftwareCarbonIntensity(share=bad)


class Metered(pl.LightningModule):
    """Update metrics with the meter of the run after each batch."""

    def __init__(self, tracker):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.energy, self.samples = EnergyConsumed(), SamplesPerJoule()
        self.tracker, self.before = tracker, None

    def on_train_start(self):
        self.before = self.joules()

    def joules(self):
        return sum(energy.joules for energy in self.tracker.session.meter.read().values())

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        spent, self.before = self.joules() - self.before, self.joules()
        self.energy.update(spent)
        self.samples.update(len(batch[0]), spent)
        self.log("train/kwh", self.energy, on_step=False, on_epoch=True)
        self.log("train/samples_per_joule", self.samples, on_step=False, on_epoch=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_logged_by_lightning_module_and_reset_every_epoch(tmp_path, precision):
    clock = SimulatedClock("2024-05-01T00:00:00+00:00", seconds_per_batch=36.0)
    tracker = EmissionsTracker(meter=500.0, clock=clock)
    module, seen = Metered(tracker), []

    class Note(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    pl.Trainer(
        max_epochs=2, callbacks=[tracker, Note()], accelerator="cpu", logger=False, precision=precision,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    ).fit(module, DataLoader(TensorDataset(torch.ones(24, 2)), batch_size=4))  # fmt: skip
    for epoch in seen:
        assert epoch["train/kwh"] == pytest.approx(6 * 36.0 * 500.0 / 3.6e6, rel=1e-6)
        assert epoch["train/samples_per_joule"] == pytest.approx(4 / (36.0 * 500.0), rel=1e-6)
    assert len(seen) == 2
    assert module.energy.joules.dtype == torch.float64


@pytest.mark.parametrize("move", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.float()])
def test_keeps_double_precision_when_module_is_converted(move):
    module = torch.nn.Sequential(torch.nn.Linear(1, 1))
    module.add_module("energy", EnergyConsumed())
    module.energy.update(3.6e12 + 1.0)
    move(module)
    module.energy.update(1.0)
    assert float(module.energy.joules) == 3.6e12 + 2.0
    module.energy.reset()
    module.energy.update(3.6e12 + 1.0)
    assert float(module.energy.joules) == 3.6e12 + 1.0
