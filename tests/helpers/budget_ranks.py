"""A training on two ranks whose budget is used.

python budget_ranks.py FOLDER LIMIT ACTION

Each rank prints its number, its steps and a digest of the weights.
"""

import hashlib
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import EnergyBudget, SimulatedClock

FOLDER, LIMIT, ACTION = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val", self.net(batch[0]).pow(2).mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


if __name__ == "__main__":
    pl.seed_everything(1, verbose=False)
    clock = SimulatedClock("2024-05-02T00:00:00+00:00", seconds_per_batch=600.0, seconds_per_restart=300.0)
    budget = EnergyBudget(
        LIMIT, directory=FOLDER / "budget", on_exceeded=ACTION, check_every="10m", meter=300.0, clock=clock,
        throttle="0.5:0.8",
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", callbacks=[budget], logger=False,
        default_root_dir=FOLDER, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model, data = Net(), TensorDataset(torch.randn(96, 4))
    trainer.fit(model, DataLoader(data, 4, shuffle=True), DataLoader(data, 48))
    weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    print(f"RANK {trainer.global_rank} {trainer.global_step} {hashlib.sha256(weights).hexdigest()}", flush=True)
