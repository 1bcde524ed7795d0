"""Train on two nodes, each with a simulated CPU package in a directory: nodes_training.py DIRECTORIES, under torchrun.

The levels are measured, and measured again when the steps become slower. Each node writes the limits of its steps.
"""

import json
import os
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler
from lightning_green.energy.rapl import RaplMeter
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit

NODE = int(os.environ["GROUP_RANK"])
TREE = Path(sys.argv[1]) / str(NODE)
LIMIT, COUNTER = (TREE / "intel-rapl:0" / name for name in ("constraint_0_power_limit_uw", "energy_uj"))


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.limits, self.throttled, self.slow = [], 0, 1.0

    def training_step(self, batch, batch_idx):
        watts = int(LIMIT.read_text()) // 1_000_000
        seconds = (0.2 if watts == 200 else 0.21) * self.slow
        time.sleep(seconds)
        COUNTER.write_text(f"{int(COUNTER.read_text()) + round(seconds * watts * 1_000_000)}\n")
        self.limits.append(watts)
        throttled = scheduler.session.recorder.status.state == "throttled"
        self.throttled = self.throttled + 1 if throttled else 0
        if self.throttled == 15:  # after a few seconds
            if self.slow > 1.0:
                self.trainer.should_stop = True  # on both nodes, because they change state at the same batch
            self.slow = 1.5
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    scheduler = CarbonScheduler(
        throttle=RaplPowerLimit([150], powercap=TREE), meter=RaplMeter("60s", TREE, "node"), max_slowdown=1.2
    )
    model = Model()
    pl.Trainer(
        max_steps=20_000, callbacks=[scheduler], accelerator="cpu", strategy="ddp", devices=1, num_nodes=2,
        logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=TREE,
    ).fit(model, DataLoader(TensorDataset(torch.randn(100_000, 2)), batch_size=1))  # fmt: skip
    (TREE / "limits.json").write_text(json.dumps(model.limits))
