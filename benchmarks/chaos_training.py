# ruff: noqa: D101, D102
"""The training of ``chaos.py``: small, with random augmentation, dropout and batch norm, and a record of every batch.

Each rank writes its batches to ``record.jsonl`` (``record1.jsonl``, ...), and at the end of training the SHA-256 of its
weights, optimizer states, schedulers and random states to ``digest0.json`` (``digest1.json``, ...).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import resource
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_green import EmissionsTracker, ExactResume

BATCH_SIZE = 4
SAMPLES, EPOCHS = 320, 2
STEP_SECONDS = 0.02
SAVE_EVERY = timedelta(minutes=4)  # of the simulated clock: four steps
SAVE_EVERY_REAL = timedelta(seconds=0.4)
START_SECONDS = 120.0


class Samples(Dataset):
    """Samples with random augmentation from the generators of torch, NumPy and Python."""

    def __init__(self, count: int, seed: int) -> None:
        self.x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor, int]:
        noise = 0.1 * torch.randn(4) + 0.1 * float(np.random.rand()) + 0.1 * random.random()
        return index, self.x[index] + noise, int(self.x[index].sum() > 0)


class Net(pl.LightningModule):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))

    def _step(self, kind: str, position: list[int], batch: Any) -> torch.Tensor:
        indices, x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        line = {"kind": kind, "at": position, "indices": indices.tolist(), "loss": float(loss.detach()).hex()}
        with open(self.folder / f"record{self.global_rank or ''}.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        return loss

    def training_step(self, batch, batch_idx):
        loss = self._step("train", [self.current_epoch, batch_idx], batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self._step("validation", [self.global_step, batch_idx], batch)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps + 20)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Failures(logging.Handler):
    """Notices that a state could not be saved: the ledger cannot be written at that moment either."""

    found = False

    def emit(self, record):
        self.found = self.found or "could not be saved" in record.getMessage()


FAILURES = Failures()


class Orders(pl.Callback):
    """Trains slowly enough to be killed, and carries out the methods that only the process itself can.

    Args:
        folder: Folder of the run.

    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.full = folder, False

    def on_train_start(self, trainer, pl_module):
        (self.folder / f"pid{trainer.global_rank}").write_text(str(os.getpid()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        time.sleep(STEP_SECONDS)
        order = self.folder / f"order{trainer.global_rank}"
        if order.exists():
            what = order.read_text()
            order.unlink()
            if what == "exception":
                raise RuntimeError("chaos")
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            logging.getLogger("lightning_green").addHandler(FAILURES)
            self.full = True
        if self.full and not trainer.is_last_batch:  # until the next batch: a checkpoint is written in between
            self._limit(4096)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.full:
            self._limit(resource.RLIM_INFINITY)
            if FAILURES.found:
                raise RuntimeError("the disk is full")

    def _limit(self, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class PatientAtStart(DDPStrategy):
    """Waits for the other rank before the timeout applies: importing may take longer than that on a busy machine.

    Args:
        folder: Folder of the run.
        timeout: Timeout of all communication.

    """

    def __init__(self, folder: Path, timeout: timedelta) -> None:
        super().__init__(timeout=timeout)
        self.folder = folder

    def setup_distributed(self) -> None:
        first = os.getpid() if self.global_rank == 0 else os.getppid()
        ready, until = self.folder / f"ready-{first}", time.monotonic() + START_SECONDS
        if self.global_rank > 0:
            ready.touch()
        while not ready.exists() and time.monotonic() < until:
            time.sleep(0.02)
        super().setup_distributed()


def train(folder: Path, ranks: int, workers: int, timeout: float) -> None:
    """Train on one or two ranks, and write the record and the digests to ``folder``."""
    torch.set_num_threads(1)
    pl.seed_everything(3, verbose=False)
    every = SAVE_EVERY if "LIGHTNING_GREEN_CLOCK" in os.environ else SAVE_EVERY_REAL
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=ranks,
        strategy=PatientAtStart(folder, timedelta(seconds=timeout)) if ranks > 1 else "auto",
        logger=False,
        num_sanity_val_steps=0,
        callbacks=[ExactResume(every=every), EmissionsTracker(meter=10.0), Orders(folder)],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    net = Net(folder)
    loader = DataLoader(Samples(SAMPLES, 1), BATCH_SIZE, shuffle=True, num_workers=workers)
    trainer.fit(net, loader, DataLoader(Samples(8, 51), BATCH_SIZE))
    state = {
        "weights": net.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "random": [torch.get_rng_state(), float(np.random.rand()), random.random()],
    }
    digests = {name: hashlib.sha256(repr(_content(value)).encode()).hexdigest() for name, value in state.items()}
    (folder / f"digest{trainer.global_rank}.json").write_text(json.dumps(digests))


def _content(value: Any) -> Any:
    """Return nested containers with the bytes of each tensor, in a fixed order."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        return str(plain.dtype), tuple(plain.shape), plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return [(str(key), _content(value[key])) for key in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [_content(item) for item in value]
    return None if callable(value) else value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=1800.0)
    given = parser.parse_args()
    train(given.folder, given.ranks, given.workers, given.timeout)
