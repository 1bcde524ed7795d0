"""Train on two ranks with a CPU package in a directory: python ranks_training.py DIRECTORY OUTPUT."""

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.utilities.clock import SimulatedClock

TREE, OUT = Path(sys.argv[1]), Path(sys.argv[2])
START = datetime(2024, 5, 1, tzinfo=timezone.utc)
LIMIT = TREE / "intel-rapl:0" / "constraint_0_power_limit_uw"


def grid(at):
    return 100.0 if (at - START).total_seconds() // 21600 % 2 == 0 else 600.0


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(2, 1), []

    def training_step(self, batch, batch_idx):
        while not (limit := LIMIT.read_text()):  # a regular file is empty while it is written, unlike a file in /sys
            pass
        self.seen.append(int(limit) // 1_000_000)
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    scheduler = CarbonScheduler(
        grid=grid, zone="XX", meter=200.0, delay_price=60.0, on_pause="hold", hold_power=1.0,
        throttle=[RaplPowerLimit(powercap=TREE), "0.75:0.9"],
        clock=SimulatedClock(START, seconds_per_batch=1800.0),
    )  # fmt: skip
    model = Model()
    trainer = pl.Trainer(
        max_steps=40, callbacks=[scheduler], accelerator="cpu", strategy="ddp", devices=2, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=OUT,
    )  # fmt: skip
    trainer.fit(model, DataLoader(TensorDataset(torch.ones(80, 2)), batch_size=1))
    found = {"seen": model.seen, "pid": os.getpid()}
    (OUT / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))
