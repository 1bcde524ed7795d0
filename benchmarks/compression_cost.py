"""Measure the cost of a training step with pruning, distillation and fake quantization.

    python benchmarks/compression_cost.py --data DIR --json

Each configuration is a Trainer fit of a small ResNet on Fashion-MNIST, with one thread. The configurations take turns,
and a ratio compares the CPU seconds of the second of two epochs within the same round. A block of 24 steps contains
one update of the masks. Lightning's ``ModelPruning`` at the same sparsity is measured too. Channels are removed in the
first epoch, once with multiples of 8, for which kernels are optimized, and once with any number. Figures are medians
over the blocks.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from compression_models import SmallResNet, cpu_kind, data_argument, fashion_mnist, interval
from lightning.pytorch.callbacks import Callback, ModelPruning
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import KnowledgeDistillation, Pruning, QuantizationAwareTraining

STEPS = 24


class Lit(pl.LightningModule):
    """A student."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SmallResNet(width=16, blocks=1, channels=1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


class Stopwatch(Callback):
    """Measure CPU seconds from the second batch of the second epoch to its last."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start after the first batch."""
        if trainer.current_epoch == 1 and batch_idx == 1:
            self.start = time.process_time()

    def on_train_batch_end(self, *args: Any) -> None:
        """Stop."""
        self.seconds = time.process_time() - getattr(self, "start", 0.0)


def block(callbacks: list[Callback], loader: DataLoader[Any]) -> float:
    torch.manual_seed(0)
    watch = Stopwatch()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[*callbacks, watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Lit(), loader)
    return watch.seconds


def configurations() -> dict[str, Callable[[], list[Callback]]]:
    teacher = SmallResNet(width=32, blocks=1, channels=1)
    every = STEPS // 2
    return {
        "plain": list,
        "pruning": lambda: [Pruning(0.8, begin=0.0, end=1.0, every_n_steps=2 * every)],
        "lightning_pruning": lambda: [
            ModelPruning("l1_unstructured", amount=0.8, use_lottery_ticket_hypothesis=False, parameter_names=["weight"])
        ],
        "rigl": lambda: [Pruning(0.8, criterion="rigl", begin=0.0, end=1.0, every_n_steps=2 * every)],
        "cached_distillation": lambda: [KnowledgeDistillation(teacher, cache="memory")],
        "uncached_distillation": lambda: [KnowledgeDistillation(teacher)],
        "qat": lambda: [QuantizationAwareTraining(begin=0.0, freeze=1.0)],
        "pruned_training": lambda: [Pruning(0.5, "channels", begin=0.0, end=0.0, round_to=8)],
        "pruned_training_unrounded": lambda: [Pruning(0.5, "channels", begin=0.0, end=0.0)],
    }


def main() -> None:
    names = [name for name in configurations() if name != "plain"]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    data_argument(parser)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--only", nargs="*", choices=names, help="measure only these and the plain step")
    arguments = parser.parse_args()
    x, y, _, _ = fashion_mnist(arguments.data)
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    count = STEPS * arguments.batch
    loader = DataLoader(TensorDataset(x[:count], y[:count]), arguments.batch)
    wanted = ["plain", *(arguments.only or names)]
    times: dict[str, list[float]] = {name: [] for name in wanted}
    for number in range(arguments.blocks):
        made = configurations()
        for name in wanted if number % 2 else reversed(wanted):
            times[name].append(block(made[name](), loader))
    figures: dict[str, Any] = {"n": arguments.blocks, "steps_per_block": STEPS - 1, "cpu": cpu_kind()}
    figures["load_average"] = os.getloadavg()[0]
    figures["plain_step_cpu_ms"] = round(1e3 * float(np.median(times["plain"])) / (STEPS - 1), 3)
    for name, values in times.items():
        if name != "plain":
            ratios = [a / b for a, b in zip(values, times["plain"], strict=True)]
            figures[f"{name}_step_ratio"] = round(float(np.median(ratios)), 4)
            figures[f"{name}_step_ratio_interval"] = interval(ratios)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
