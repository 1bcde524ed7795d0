"""A training on two ranks that a test stops, pauses in process or kills.

python rank_training.py FOLDER ddp|spawn|fsdp|fsdp2

STOP is the kind and the batch of the stop: ``exit@7``, ``SIGTERM@7:1`` (that signal to rank 1 in its batch 7),
``SIGKILL@7:1``, ``hold@7`` (for HOLD seconds), ``hold-kill@7:1`` (rank 1 is killed during the hold), ``full@7:1`` (from
then on rank 1 cannot write a file of more than 4 KiB), ``agent@7:1`` (rank 1 kills the process that started it, and
steps take a second from then on). GRID adds the tracker and the scheduler, INEXACT allows another
number of ranks and puts a tracker before the callback that allows it. Each rank writes its results to FOLDER.
"""

import hashlib
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume
from lightning_green.ledger.events import Paused

FOLDER, STRATEGY = Path(sys.argv[1]), sys.argv[2]
HOW, _, WHERE = os.environ.get("STOP", "").partition("@")
AT, _, WHO = WHERE.partition(":")
ORDER = []  # the batches of this process; an attribute would be restored


class Data(Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, index):
        return index, torch.full((4,), float(index)) / 96 + 0.1 * torch.rand(4)


class FSDPOnCPU(FSDPStrategy):
    """FSDP on CPU: torch requires the device, and Lightning passes only the index of a GPU."""

    def _setup_model(self, model):
        return FullyShardedDataParallel(model, device_id=self.root_device, **self.kwargs)


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))
        self.mean = MeanMetric()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def configure_model(self):
        if STRATEGY == "fsdp2":
            for part in (self.net[0], self.net):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, batch_idx):
        ids, x = batch
        self.seen += ids.sum()  # differs between the ranks
        ORDER.append([self.current_epoch, batch_idx, ids.tolist()])
        loss = (self.net(x + 0.01 * torch.randn_like(x)).squeeze(1) - x.sum(1)).square().mean()
        self.mean(loss.detach())
        self.log("loss", loss, on_step=False, on_epoch=True)
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", self.net(batch[1]).mean(), sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        total = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=2 * int(total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Stop(pl.Callback):
    """Stop at the point of STOP, once per folder."""

    def on_train_start(self, trainer, pl_module):
        seed = 100 + trainer.global_rank  # the random states of the ranks have to differ
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        self.done = (FOLDER / "stopped").exists()
        if trainer.global_rank == 0 and HOW in ("exit", "hold", "hold-kill") and not self.done:
            trainer._lightning_green_fit.actions.append(self.at_boundary)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        due = len(ORDER) == int(AT or -1) and not self.done
        if due and HOW.startswith("SIG") and trainer.global_rank == int(WHO):
            (FOLDER / "stopped").touch()
            os.kill(os.getpid(), getattr(signal, HOW))
        if due and HOW == "full" and trainer.global_rank == int(WHO):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        if due and HOW == "agent" and trainer.global_rank == int(WHO):  # kill the process that started the ranks
            (FOLDER / "stopped").touch()
            os.kill(os.getppid(), signal.SIGKILL)
        if HOW == "agent" and not self.done and len(ORDER) >= int(AT):
            time.sleep(1.0)
        if due and HOW == "raise" and trainer.global_rank == int(WHO):
            (FOLDER / "stopped").touch()
            raise ValueError("of the user's own")
        if HOW == "hold-kill" and trainer.global_rank == int(WHO):
            threading.Thread(target=self.die_when_held, daemon=True).start()

    @staticmethod
    def die_when_held():
        while not (FOLDER / "held").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    def at_boundary(self, point):
        if len(ORDER) < int(AT) or (FOLDER / "stopped").exists():
            return
        fit = self.trainer._lightning_green_fit
        (FOLDER / "stopped").touch()
        if HOW == "exit":
            until = fit.session.clock.now() + timedelta(seconds=1)
            fit.ending.exit_until(point, Paused(until=until, reason="requested by the test"))
        else:
            (FOLDER / "held").touch()
            began, seconds = time.monotonic(), float(os.environ.get("HOLD", "5"))
            while time.monotonic() - began < seconds and not fit.boundaries.stop_requested():
                time.sleep(0.2)
            (FOLDER / "hold-over").touch()
            fit.boundaries.end_hold(time.monotonic() - began)

    def setup(self, trainer, pl_module, stage):
        self.trainer = trainer

    def on_train_end(self, trainer, pl_module):
        digest = hashlib.sha256()
        optimizer = [state["exp_avg_sq"] for state in trainer.optimizers[0].state.values()]
        for value in [*pl_module.parameters(), *pl_module.buffers(), *optimizer]:
            own = value.to_local() if isinstance(value, DTensor) else value
            digest.update(own.detach().clone().numpy().tobytes())  # a clone, because NumPy keeps the memory
        FOLDER.joinpath(f"rank{trainer.global_rank}.json").write_text(
            json.dumps(
                {
                    "weights": digest.hexdigest(),
                    "random": [torch.rand(()).item(), float(np.random.rand()), random.random()],
                    "logged": {k: v.item() for k, v in sorted(trainer.callback_metrics.items())},
                    "last": ORDER[-3:],
                    "first": ORDER[0],
                    "batches": len(ORDER),
                }
            )
        )


def main():
    pl.seed_everything(7, workers=True)
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    if STRATEGY == "fsdp":
        strategy = FSDPOnCPU(auto_wrap_policy=ModuleWrapPolicy({nn.Linear}))
    elif STRATEGY == "fsdp2":
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    else:
        strategy = DDPStrategy(
            broadcast_buffers=False,  # the statistics of batch norm differ between the ranks
            start_method="popen" if launched or STRATEGY == "ddp" else "spawn",
            timeout=timedelta(seconds=float(os.environ.get("TIMEOUT", "120"))),
        )
    inexact = "INEXACT" in os.environ
    before, green = [EmissionsTracker(meter=300.0)] if inexact else [], []
    if "GRID" in os.environ:
        scheduler = CarbonScheduler(deadline="40h", hold_power=0.3, resume_cost=0.1)
        green = [EmissionsTracker(meter=300.0, grid=os.environ["GRID"]), scheduler]
    if STRATEGY.startswith("fsdp"):  # torch crashes when it gathers FSDP shards on CPU
        green.append(ModelCheckpoint(save_top_k=0))
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=int(os.environ.get("DEVICES", "2")),
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=FOLDER,
        val_check_interval=0.5,
        callbacks=[*before, ExactResume(every=os.environ.get("EVERY"), allow_inexact=inexact), *green, Stop()],
    )
    train = DataLoader(Data(), batch_size=4, shuffle=True, num_workers=int(os.environ.get("WORKERS", "0")))
    trainer.fit(Model(), train, DataLoader(Data(), batch_size=32))


if __name__ == "__main__":
    main()
