"""Train with a simulated CPU package in a directory: python throttled_training.py DIRECTORY [ENDING]."""

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
from lightning_green.utilities.clock import SystemClock

TREE, ENDING = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
LIMIT, COUNTER = (TREE / "intel-rapl:0" / name for name in ("constraint_0_power_limit_uw", "energy_uj"))


class StepClock(SystemClock):
    """A clock whose step times do not depend on the load of the machine."""

    seconds = 0.0

    def monotonic(self):
        return self.seconds


clock = StepClock()


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        full = int(LIMIT.read_text()) == 200_000_000
        seconds = 0.05 if full else 0.053
        clock.seconds += seconds
        # the energy counter of the package, at 200 W or at the limit
        COUNTER.write_text(f"{int(COUNTER.read_text()) + round(seconds * int(LIMIT.read_text()))}\n")
        if scheduler.session.recorder.status.state == "throttled":  # a measured level is in use
            print("throttled", flush=True)
            if ENDING == "wait":
                time.sleep(60)
            elif ENDING == "raise":
                raise RuntimeError("on purpose")
            elif ENDING in ("finish", "plan"):
                self.trainer.should_stop = True
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    os.environ.setdefault("LIGHTNING_GREEN_CACHE_DIR", str(TREE / "cache"))
    planned = {"grid": 400.0, "zone": "XX", "deadline": "2h"} if ENDING == "plan" else {}
    scheduler = CarbonScheduler(
        throttle=RaplPowerLimit([150], powercap=TREE),
        meter=RaplMeter("60s", TREE, "node"),
        max_slowdown=1.2,
        clock=clock,
        **planned,
    )
    data = DataLoader(TensorDataset(torch.randn(100_000, 2)), batch_size=1)
    pl.Trainer(
        max_steps=20_000,
        callbacks=[scheduler],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=TREE,
    ).fit(Model(), data)
