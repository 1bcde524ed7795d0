# ruff: noqa: D101, D102
"""One rank of the trainings and measurements of ``scale.py``.

    python scale_training.py FOLDER broadcast RANKS BLOCKS
    python scale_training.py FOLDER train RANKS KIND SEED EPOCHS DATA

Each rank writes ``rank<rank>.json`` into FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from compression_models import fashion_mnist
from socket_bytes import sent_bytes
from torch import nn
from torch.utils.data import DataLoader

from lightning_green import GreenDDPStrategy
from lightning_green._lightning.ddp import bucket_layout
from lightning_green.strategies.control_group import Command, ControlGroup

KINDS: dict[str, dict[str, Any]] = {
    "none": {"compression": None},
    "bf16": {"compression": "bf16"},
    "fp16": {"compression": "fp16"},
    "low_rank": {"compression": "low_rank", "compression_rank": 4},
    "average": {"compression": None, "average_every": 8, "start_averaging_at_step": 100},
}
BATCH_SIZE = 100  # of each rank
CALLS = 10  # of one block
WARM_UP = 20  # steps before bytes are counted


def measure_broadcast(folder: Path, blocks: int) -> None:
    """Write the seconds of one call of Lightning's broadcast before a batch, of ours, and of one sync, per block.

    After each call the ranks sum a tensor as after each backward pass, so that none of them is ahead of the others.
    """
    rank, size = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", rank=rank, world_size=size)
    group, gradients = ControlGroup(rank, size), torch.zeros(1000)

    def lightning() -> None:
        if size > 1:
            asked = torch.tensor([0])
            dist.broadcast(asked, src=0)
            asked.item()

    def before_batch() -> None:
        group.all_reduce_max_of_batch(0, 0)

    def sync() -> None:
        group.all_reduce_max(0)
        if rank == 0:
            group.send(Command.CONTINUE)
        elif size > 1:
            group.receive()

    calls = {"nothing": lambda: None, "lightning": lightning, "before_batch": before_batch, "sync": sync}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for block in range(blocks + 1):
        for name in list(calls)[:: 1 if block % 2 else -1]:
            dist.barrier()
            began = time.perf_counter()
            for _ in range(CALLS):
                calls[name]()
                dist.all_reduce(gradients)
            if block:  # the first one is a warm-up
                found[name].append((time.perf_counter() - began) / CALLS)
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


class Classifier(pl.LightningModule):
    def __init__(self, steps: int) -> None:
        super().__init__()
        sizes = ((784, 256), (256, 128))
        hidden = [m for i, o in sizes for m in (nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU())]
        self.net, self.steps = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10)), steps

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=self.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Bytes(pl.Callback):
    """Counts the bytes after a warm-up, by the strategy and by the kernel."""

    def __init__(self) -> None:
        self.began, self.ended, self.buckets = (0.0, 0), (0.0, 0), 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == WARM_UP or trainer.global_step == pl_module.steps:
            now = (trainer.strategy.communication.traffic.sent, sent_bytes())
            self.buckets = len(bucket_layout(trainer))
            self.began, self.ended = (now, now) if trainer.global_step == WARM_UP else (self.began, now)


def train(folder: Path, kind: str, seed: int, epochs: int, data: Path) -> None:
    """Train on Fashion-MNIST; write the accuracy in points and the bytes."""
    torch.set_num_threads(1)
    pl.seed_everything(seed, verbose=False)
    size = int(os.environ["WORLD_SIZE"])
    x, y, x_test, y_test = fashion_mnist(data)
    module, count = Classifier(epochs * (len(y) // (BATCH_SIZE * size))), Bytes()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=size,
        strategy=GreenDDPStrategy(bucket_cap_mb=0.004, **KINDS[kind]),
        logger=False,
        callbacks=[count],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    loader = DataLoader(range(len(y)), BATCH_SIZE, shuffle=True, collate_fn=lambda rows: (x[rows], y[rows]))
    trainer.fit(module, loader)
    with torch.no_grad():
        right = (module.eval().net(x_test).argmax(1) == y_test).float().mean().item()
    steps = max(trainer.global_step - WARM_UP, 1)
    found = {
        "points": 100 * right,
        "steps": trainer.global_step,
        "buckets": count.buckets,
        "counted": (count.ended[0] - count.began[0]) / steps,
        "socket": (count.ended[1] - count.began[1]) / steps,
    }
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    where, task, _, *rest = sys.argv[1:]
    if task == "broadcast":
        measure_broadcast(Path(where), int(rest[0]))
    else:
        train(Path(where), rest[0], int(rest[1]), int(rest[2]), Path(rest[3]))
