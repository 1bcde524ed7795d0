# ruff: noqa: D101, D102
"""The training of ``ranks.py``: small, with one strategy or situation of several ranks, and one stop.

    python ranks_training.py FOLDER STRATEGY RANKS

STOP is a kind, a batch and a rank: ``exit@7:0`` (a planned exit), ``SIGTERM@7:1``, ``SIGKILL@7:1``, ``raise@7:1``. Each
rank writes the SHA-256 of its weights, buffers, optimizer states and random states to ``digest<rank>.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_green import ExactResume, GreenDDPStrategy
from lightning_green.ledger.events import Paused

WIDTH, BATCH_SIZE, EPOCHS = 17, 4, 2
BATCHES = 10  # of one epoch, on each rank; the last one is smaller
TIMEOUT = timedelta(seconds=60)
DDP_OPTIONS: dict[str, dict[str, Any]] = {
    "ddp_unused": {"find_unused_parameters": True},
    "ddp_views": {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.002},
    "ddp_static": {"static_graph": True},
}
GREEN_OPTIONS: dict[str, dict[str, Any]] = {
    "green_low_rank": {"compression": "low_rank", "compression_rank": 2, "start_compression_at_step": 2},
    "green_accumulate": {"compression": "low_rank", "compression_rank": 2},
    "green_average": {"compression": "bf16", "average_every": 3, "start_averaging_at_step": 4},
}


class Samples(Dataset):
    def __init__(self, count: int) -> None:
        self.x = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.x[index] + 0.1 * torch.randn(WIDTH)


class Stream(IterableDataset):
    """A stream that is longer on rank 0, so the ranks are soon in different epochs."""

    def __iter__(self):
        for _ in range((BATCHES if dist.get_rank() == 0 else BATCHES - 3) * BATCH_SIZE):
            yield torch.randn(WIDTH)


class Data(pl.LightningDataModule):
    """Keeps a state that differs between the ranks."""

    def __init__(self, ranks: int) -> None:
        super().__init__()
        self.ranks, self.numbers = ranks, torch.zeros(3)

    def train_dataloader(self):
        return DataLoader(Samples(BATCHES * BATCH_SIZE * self.ranks - self.ranks), BATCH_SIZE, shuffle=True)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        self.numbers = self.numbers * 0.5 + self.trainer.global_rank
        return batch + 0.01 * self.numbers.sum()

    def state_dict(self):
        return {"numbers": self.numbers}

    def load_state_dict(self, state_dict):
        self.numbers = state_dict["numbers"]


class FSDPOnCPU(FSDPStrategy):
    """FSDP on CPU: torch requires the device, and Lightning passes only the index of a GPU."""

    def _setup_model(self, model):
        return FullyShardedDataParallel(model, device_id=self.root_device, **self.kwargs)


class Net(pl.LightningModule):
    def __init__(self, strategy: str) -> None:
        super().__init__()
        self.strategy_name = strategy
        self.net = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.2), nn.Linear(WIDTH, WIDTH),
            nn.Tanh(), nn.Linear(WIDTH, WIDTH),
        )  # fmt: skip
        self.scale = 1.0

    def configure_model(self):
        if self.strategy_name == "fsdp2":
            for part in (self.net[0], self.net):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def on_train_start(self):
        model = self.trainer.strategy.model
        if self.strategy_name == "ddp_powersgd":
            model.register_comm_hook(PowerSGDState(None, 1, 2, min_compression_rate=0.5), powerSGD_hook)
        elif self.strategy_name == "ddp_feedback":
            model.register_comm_hook(None, rounding_with_feedback())
        elif self.strategy_name == "ddp_local_sgd":
            group = [dist.new_group([rank]) for rank in range(dist.get_world_size())][dist.get_rank()]
            model.register_comm_hook(PostLocalSGDState(None, group, 3), post_localSGD_hook)
            self.averager = PeriodicModelAverager(period=4, warmup_steps=3)

    def training_step(self, batch, batch_idx):
        loss = self.scale * (self.net(batch) - batch.sin()).square().mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.strategy_name == "ddp_local_sgd":
            self.averager.average_parameters(self.parameters())

    def test_step(self, batch, batch_idx):
        self.log("test", (self.net(batch) - batch.sin()).square().mean() + 0.1 * torch.rand(()), sync_dist=True)

    def on_save_checkpoint(self, checkpoint):
        if self.strategy_name == "ddp_states":
            checkpoint["scale"] = self.scale

    def on_load_checkpoint(self, checkpoint):
        if self.strategy_name == "ddp_states":
            self.scale = checkpoint["scale"]

    def on_before_zero_grad(self, optimizer):
        if self.strategy_name == "ddp_states":
            self.scale = self.scale * 0.99 + 0.001 * self.global_rank

    def configure_optimizers(self):
        if self.strategy_name == "ddp_zero":
            return ZeroRedundancyOptimizer(self.parameters(), torch.optim.Adam, lr=0.01)
        return torch.optim.Adam(self.parameters(), 0.01)


def rounding_with_feedback():
    """Return a communication hook that rounds gradients, and adds what it has lost to the next ones."""
    errors: dict[int, torch.Tensor] = {}

    def hook(state, bucket):
        gradients = bucket.buffer() + errors.get(bucket.index(), 0.0)
        rounded = gradients.bfloat16().float()
        errors[bucket.index()] = gradients - rounded
        future = dist.all_reduce(rounded / dist.get_world_size(), async_op=True).get_future()
        return future.then(lambda reduced: reduced.value()[0])

    return hook


class Stop(pl.Callback):
    """Carry out STOP once per folder, and count the batches of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.batches = folder, 0
        self.how, _, where = os.environ.get("STOP", "").partition("@")
        at, _, rank = where.partition(":")
        self.at, self.rank = int(at or -1), int(rank or 0)

    def on_train_start(self, trainer, pl_module):
        seed = 100 + trainer.global_rank  # the random states of the ranks differ
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        if trainer.global_rank == 0 and self.how == "exit" and not (self.folder / "stopped").exists():
            trainer._lightning_green_fit.actions.append(lambda point: self.exit(trainer, point))

    def exit(self, trainer, point):
        if self.batches >= self.at and not (self.folder / "stopped").exists():
            (self.folder / "stopped").touch()
            fit = trainer._lightning_green_fit
            until = fit.session.clock.now() + timedelta(seconds=1)
            fit.ending.exit_until(point, Paused(until=until, reason="requested by the benchmark"))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches += 1
        if self.batches != self.at or trainer.global_rank != self.rank or (self.folder / "stopped").exists():
            return
        if self.how == "raise" or self.how.startswith("SIG"):
            (self.folder / "stopped").touch()
            if self.how == "raise":
                raise ValueError("of the script")
            os.kill(os.getpid(), getattr(signal, self.how))


def strategy_of(name: str, ranks: int) -> Any:
    if name == "fsdp":
        return FSDPOnCPU(auto_wrap_policy=ModuleWrapPolicy({nn.Linear}), timeout=TIMEOUT)
    if name == "fsdp2":
        return ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1, timeout=TIMEOUT)
    if name in GREEN_OPTIONS:
        return GreenDDPStrategy(**GREEN_OPTIONS[name], bucket_cap_mb=0.002, timeout=TIMEOUT)
    return DDPStrategy(timeout=TIMEOUT, **DDP_OPTIONS.get(name, {}))


def train(folder: Path, name: str, ranks: int) -> None:
    torch.set_num_threads(1)
    pl.seed_everything(3, verbose=False)
    content = hashlib.sha256()
    results: list[Any] = []
    for number in range(2 if name == "ddp_two_fits" else 1):
        module = Net(name)
        limits = {"max_steps": 25, "max_epochs": -1} if name == "ddp_streams" else {"max_epochs": EPOCHS}
        if name in GREEN_OPTIONS:  # more than 20 steps
            limits["max_epochs"] = 3
        if name in ("ddp_accumulate", "green_accumulate"):
            limits["accumulate_grad_batches"] = 3
        stop = Stop(folder)
        if number:
            stop.how = ""
        trainer = pl.Trainer(
            **limits,
            accelerator="cpu",
            devices=ranks,
            strategy=strategy_of(name, ranks),
            logger=False,
            callbacks=[ExactResume(every="3m"), ModelCheckpoint(save_top_k=0), stop],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if name == "ddp_streams":
            trainer.fit(module, DataLoader(Stream(), BATCH_SIZE))
        else:
            trainer.fit(module, datamodule=Data(ranks))
        states = [value for optimizer in trainer.optimizers for value in _tensors(optimizer)]
        if name in GREEN_OPTIONS and trainer.strategy.communication.low_rank is not None:
            kept = trainer.strategy.communication.low_rank
            states += [*kept.errors.values(), *kept.factors.values()]
        for value in [*module.parameters(), *module.buffers(), *states]:
            own = value.to_local() if isinstance(value, DTensor) else value
            content.update(own.detach().clone().cpu().numpy().tobytes())
        if name == "ddp_two_fits":
            results += [value.item() for value in trainer.callback_metrics.values()]
            trainer.test(module, DataLoader(Samples(6 * ranks), BATCH_SIZE), verbose=False)
            results += [value.item() for value in trainer.callback_metrics.values()]
    numbers = [torch.rand(()).item(), float(np.random.rand()), random.random()]
    found = {"weights": content.hexdigest(), "random": numbers, "results": results, "step": trainer.global_step}
    (folder / f"digest{trainer.global_rank}.json").write_text(json.dumps(found))


def _tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    own = optimizer.optim if isinstance(optimizer, ZeroRedundancyOptimizer) else optimizer  # has the states of its rank
    states = [own.state[parameter] for group in own.param_groups for parameter in group["params"]]
    return [value for one in states for value in one.values() if isinstance(value, torch.Tensor)]


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
