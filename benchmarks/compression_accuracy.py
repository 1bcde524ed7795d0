"""What accuracy do pruning, int8 and distillation cost or bring, and what would fewer steps have cost?

    python benchmarks/compression_accuracy.py --data DIR --seeds 3 [--images N] [--epochs N] --json

A CIFAR-style ResNet on Fashion-MNIST (random shifts and flips, a function of seed, epoch and position), tested on
all 10,000 test images. Every way is trained as long as the plain model of the same seed; differences are in points of
accuracy, means over the seeds with a 95 % interval (Student's t). Beside each saving stands the accuracy of a control:
the plain model trained for fewer epochs, with the learning rate decayed over those, for the CPU seconds that the
cheaper way took.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from compression_models import SmallResNet, data_argument, fashion_mnist
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_green import KnowledgeDistillation, Pruning, QuantizationAwareTraining

# 97.5 % quantiles of Student's t by degrees of freedom.
_T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


class Batches(IterableDataset[Any]):
    """Shuffled batches with random shifts and flips."""

    def __init__(self, x: Tensor, y: Tensor, batch: int, seed: int) -> None:
        self.x, self.y, self.batch, self.seed, self.epoch = x, y, batch, seed, 0

    def __len__(self) -> int:
        return len(self.y) // self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        self.epoch += 1
        order = torch.randperm(len(self.y), generator=generator)
        for i in range(len(self)):
            chosen = order[i * self.batch : (i + 1) * self.batch]
            images = nn.functional.pad(self.x[chosen], (2, 2, 2, 2), value=-0.81)
            dx, dy, flip = torch.randint(0, 5, (3,), generator=generator).tolist()
            images = images[:, :, dy : dy + 28, dx : dx + 28]
            yield (images.flip(3) if flip < 2 else images).contiguous(), self.y[chosen]


class Lit(pl.LightningModule):
    """A classifier with a learning rate that rises and falls once."""

    def __init__(self, width: int, blocks: int, rate: float = 0.2) -> None:
        super().__init__()
        self.network, self.rate = SmallResNet(width, blocks, channels=1), rate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        """Return SGD and its schedule."""
        optimizer = torch.optim.SGD(self.parameters(), self.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=steps + 1, pct_start=0.2)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


@torch.no_grad()
def outputs(network: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([network(x[i : i + 250]) for i in range(0, len(x), 250)])


def points(logits: Tensor, y: Tensor) -> float:
    return 100 * float((logits.argmax(1) == y).float().mean())


def train(
    seed: int,
    data: tuple[Tensor, ...],
    epochs: int,
    callbacks: list[Callback],
    width: int,
    blocks: int,
    steps: int = -1,
) -> tuple[Lit, float]:
    """Return the trained module and the CPU seconds of its training."""
    torch.manual_seed(seed)
    module = Lit(width, blocks)
    trainer = pl.Trainer(
        max_epochs=epochs,
        max_steps=steps,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.process_time()
    trainer.fit(module, DataLoader(Batches(data[0], data[1], 128, seed), batch_size=None))
    return module.eval(), time.process_time() - start


def interval(values: list[float]) -> list[float]:
    """Return the 95 % interval of a mean."""
    if len(values) < 2:
        return [-math.inf, math.inf]
    half = _T.get(len(values) - 1, 2.0) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return [round(float(np.mean(values)) - half, 3), round(float(np.mean(values)) + half, 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    data_argument(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=12_000, help="training images")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=16)
    arguments = parser.parse_args()
    x, y, x_test, y_test = fashion_mnist(arguments.data)
    data = (x[: arguments.images], y[: arguments.images])
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    found: dict[str, list[float]] = {}
    epochs, width = arguments.epochs, arguments.width

    def note(key: str, value: float) -> None:
        found.setdefault(key, []).append(value)

    for seed in range(arguments.seeds):

        def run(callbacks: list[Callback], seed: int = seed, wide: int = width, steps: int = -1) -> tuple[Lit, float]:
            return train(seed, data, epochs, callbacks, wide, 1, steps)

        plain, plain_seconds = run([])
        base = points(outputs(plain.network, x_test), y_test)
        note("plain_accuracy", base)
        note("plain_cpu_seconds", plain_seconds)
        module, seconds = run([Pruning(0.5, "channels", begin=0.1, end=0.4, round_to=4)])
        note("channel_pruned_50_points", points(outputs(module.network, x_test), y_test) - base)
        note("channel_pruned_50_cpu_ratio", seconds / plain_seconds)
        all_steps = epochs * (len(data[1]) // 128)
        control, _ = run([], steps=max(2, round(all_steps * seconds / plain_seconds)))
        note("train_less_control_points", points(outputs(control.network, x_test), y_test) - base)

        qat = QuantizationAwareTraining(begin=0.85, freeze=0.95)
        module, seconds = run([qat])
        int8 = outputs(qat.convert(module), x_test)
        note("int8_points", points(int8, y_test) - base)
        note("int8_cpu_ratio", seconds / plain_seconds)
        note(
            "int8_agreement",
            float((outputs(Simulated(qat, module), x_test).argmax(1) == int8.argmax(1)).float().mean()),
        )

        for key, callback in (
            ("sparse_80_points", Pruning(0.8)),
            ("nm_2_4_points", Pruning(granularity="2:4", begin=0.1, end=0.5)),
        ):
            module, _ = run([callback])
            note(key, points(outputs(module.network, x_test), y_test) - base)

        student = max(4, width // 4)
        alone, alone_seconds = run([], wide=student)
        student_base = points(outputs(alone.network, x_test), y_test)
        teacher, teacher_seconds = run([], wide=2 * width)
        note("teacher_accuracy", points(outputs(teacher.network, x_test), y_test))
        note("student_accuracy", student_base)
        module, seconds = run(
            [KnowledgeDistillation(copy.deepcopy(teacher.network), {"standardised": 4.0})], wide=student
        )
        note("distilled_points", points(outputs(module.network, x_test), y_test) - student_base)
        note("distilled_cpu_ratio", seconds / alone_seconds)
        note("teacher_cpu_ratio", teacher_seconds / alone_seconds)

    figures: dict[str, Any] = {
        "n": arguments.seeds,
        "images": arguments.images,
        "epochs": epochs,
        "width": width,
        "load_average": os.getloadavg()[0],
    }
    for key, values in found.items():
        figures[key] = round(float(np.mean(values)), 4)
        figures[f"{key}_interval"] = interval(values)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))


class Simulated(nn.Module):
    """A module's network in fake quantisation."""

    def __init__(self, callback: QuantizationAwareTraining, module: Lit) -> None:
        super().__init__()
        self.callback, self.module = callback, [module]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        assert self.callback.quantized is not None
        return self.callback.quantized.run(x, training=False)


if __name__ == "__main__":
    main()
