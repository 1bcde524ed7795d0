"""Trainings on a GPU that are killed or paused end with the weights of an uninterrupted one."""

import hashlib
import os
import sys

import pytest
import torch

from tests.helpers.processes import green, run_to_the_end

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

SCRIPT = """
import os, signal, sys
import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from lightning_green import CarbonScheduler, ExactResume, SimulatedClock

torch.use_deterministic_algorithms(True)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(14400, 10)
        )

    def training_step(self, batch, batch_idx):
        images = batch[0] + 0.1 * torch.randn_like(batch[0])  # random numbers of the GPU
        return nn.functional.cross_entropy(self.layers(images), batch[1])

    def on_train_batch_end(self, *_):
        kill = os.environ.get("KILL_AT")
        if kill and self.global_step == int(kill) and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 1e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


pl.seed_everything(7)
generator = torch.Generator().manual_seed(1)
data = TensorDataset(torch.randn(640, 3, 32, 32, generator=generator), torch.randint(10, (640,), generator=generator))
callbacks = [] if "plain" in sys.argv else [ExactResume(every="1s")]
if "pause" in sys.argv:
    clock = SimulatedClock("2024-05-01T00:00:00Z", seconds_per_batch=600)
    grid = "trace.csv"
    callbacks.append(CarbonScheduler(grid=grid, zone="XX", deadline="3d", meter=300.0, clock=clock))
trainer = pl.Trainer(
    max_epochs=3, callbacks=callbacks, accelerator="gpu", devices=1, precision=os.environ["PRECISION"], logger=False,
    enable_progress_bar=False, enable_model_summary=False, benchmark=False,
)
module = Net()
trainer.fit(module, DataLoader(data, batch_size=32, shuffle=True, num_workers=2, persistent_workers=True))
torch.save(module.state_dict(), "weights.pt")
"""


def weights(folder):
    state = torch.load(folder / "weights.pt", weights_only=True, map_location="cpu")
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_killed_and_paused_training_on_a_gpu_end_with_the_same_weights(precision, tmp_path):
    variables = {"PRECISION": precision, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "KILL_AT": ""}
    plain, killed, paused = (tmp_path / name for name in ("plain", "killed", "paused"))
    for folder in (plain, killed, paused):
        folder.mkdir()
        (folder / "train.py").write_text(SCRIPT)
    code, output = run_to_the_end([sys.executable, "train.py", "plain"], plain, **variables)
    assert code == 0, output

    variables["KILL_AT"] = "37"
    code, output = run_to_the_end(
        green("run", "--run-dir", "run", "--", sys.executable, "train.py"), killed, **variables
    )
    assert code == 0, output
    assert os.path.exists(killed / "killed")
    assert weights(killed) == weights(plain)

    hours = [f"2024-05-01T{hour:02}:00:00Z,{600 if hour < 6 else 50}" for hour in range(24)]
    (paused / "trace.csv").write_text("datetime,carbon_intensity\n" + "\n".join(hours) + "\n")
    line = green("run", "--run-dir", "run", "--", sys.executable, "train.py", "pause")
    code, output = run_to_the_end(line, paused, **(variables | {"KILL_AT": ""}))
    assert code == 0, output
    assert "attempt 2, continued from" in output
    assert weights(paused) == weights(plain)
