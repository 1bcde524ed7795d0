"""A training on several nodes that draw 300 W, 200 W, ... and that a test stops: nodes_script.py FOLDER DEVICES.

STOP selects how: ``exit@7`` exits after batch 7, ``kill@7`` kills every process in its batch 7, and ``kill-1@7`` those
of node 1. EVERY is the interval of checkpoints. TRACE adds the scheduler, with HOLD as the power of a hold and PRICE as
the price of an hour, and TREES a throttle with one tree of limits per node. ALONE is the tracker without anything else.
What each rank saw goes to FOLDER. ON_PAUSE=auto is the scheduler that exits if something restarts it.
"""

import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume
from lightning_green.ledger.events import Paused
from lightning_green.metrics import EnergyConsumed, SamplesPerJoule
from lightning_green.throttle.actuators import rapl_power_limit
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit

FOLDER, DEVICES, NODE = Path(sys.argv[1]), int(sys.argv[2]), int(os.environ["GROUP_RANK"])
HOW, _, AT = os.environ.get("STOP", "").partition("@")
TREES, TRACE = os.environ.get("TREES"), os.environ.get("TRACE")
LIMIT = None if TREES is None else Path(TREES) / str(NODE) / "intel-rapl:0" / "constraint_0_power_limit_uw"

COUNTED = [0.0]  # J of this process; an attribute would be restored


class Model(pl.LightningModule):
    def __init__(self, tracker):
        super().__init__()
        self.layer, self.tracker = torch.nn.Linear(2, 1), tracker
        self.energy, self.samples = EnergyConsumed(), SamplesPerJoule()
        self.limits, self.seen = [], []

    def joules(self):
        return sum(energy.joules for energy in self.tracker.session.meter.read().values())

    def on_train_start(self):
        COUNTED[0] = self.joules()

    def training_step(self, batch, batch_idx):
        if LIMIT is not None:
            self.limits.append(int(LIMIT.read_text()) // 1_000_000)
        return self.layer(batch[0]).square().mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        spent, COUNTED[0] = self.joules() - COUNTED[0], self.joules()
        self.energy.update(spent)
        self.samples.update(len(batch[0]), spent)

    def on_train_epoch_end(self):
        self.seen.append([float(self.energy.compute()), float(self.samples.compute())])
        self.energy.reset(), self.samples.reset()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stop(pl.Callback):
    """Stop as STOP asks."""

    def setup(self, trainer, pl_module, stage):
        self.batches, self.fit = 0, trainer._lightning_green_fit
        if HOW == "exit" and trainer.global_rank == 0:
            self.fit.actions.append(self.at_boundary)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches += 1
        if HOW in ("kill", f"kill-{NODE}") and self.batches == int(AT):
            os.kill(os.getpid(), signal.SIGKILL)

    def at_boundary(self, point):
        if self.batches == int(AT):
            until = self.fit.session.clock.now() + timedelta(hours=1)
            self.fit.ending.exit_until(point, Paused(until=until, reason="requested by the test"))


if __name__ == "__main__":
    pl.seed_everything(1)
    tracker = EmissionsTracker(meter=300.0 - 100.0 * NODE, grid=TRACE or 400.0, zone="XX")
    green = [tracker] if "ALONE" in os.environ else [tracker, ExactResume(every=os.environ.get("EVERY")), Stop()]
    if os.environ.get("ON_PAUSE") == "auto":
        green = [tracker, CarbonScheduler(deadline="40h", hold_power=0.3, resume_cost=0.1)]
    elif TRACE is not None:
        if TREES:
            rapl_power_limit.POWERCAP = Path(TREES) / str(NODE)  # also where the state of a killed process is restored
        throttle = [RaplPowerLimit(), "0.75:0.9"] if TREES else None
        hold, price = float(os.environ["HOLD"]), float(os.environ["PRICE"])
        waiting = {"on_pause": "hold", "hold_power": hold, "delay_price": price, "deadline": "60h"}
        green.append(CarbonScheduler(throttle=throttle, **waiting))
    model = Model(tracker)
    trainer = pl.Trainer(
        max_epochs=2, callbacks=green, accelerator="cpu", strategy="ddp", devices=DEVICES, num_nodes=2,
        logger=CSVLogger(FOLDER, "csv", "0"), log_every_n_steps=1, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=FOLDER,
    )  # fmt: skip
    trainer.fit(model, DataLoader(TensorDataset(torch.ones(40 * DEVICES, 2)), batch_size=2))
    found = {"seen": model.seen, "limits": model.limits, "summary": tracker.summary(), "at": trainer.global_step}
    (FOLDER / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))
