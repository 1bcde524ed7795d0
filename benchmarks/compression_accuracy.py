"""Measure the effect of pruning, int8 and distillation on accuracy, and compare it with that of the same CPU time.

    python benchmarks/compression_accuracy.py --data DIR --seeds 3 [--images N] [--epochs N] --json

A CIFAR-style ResNet is trained on the first N images of Fashion-MNIST without augmentation, in an order that depends
on seed and epoch, and tested on all 10,000 test images. Every configuration is trained for the same number of steps as
the plain model of the same seed. Differences are in points of accuracy, means over the seeds with a 95 % interval
(Student's t). The outputs of the int8 model are those of ONNX Runtime.

Distillation is measured with few labels. The teacher is one plain model that was trained on all 60,000 images
beforehand (not timed). The student is half as wide and is trained on the N images. The student without a teacher has
the same images in the same order for the same number of steps. The teacher computes each image once. In
``distilled_by_plain``, the teacher is the plain model of the seed, which was trained on the student's images only.

The controls use the CPU time for steps instead, with the learning rate decayed over those steps: the plain model for
the CPU seconds of the channel-pruned training (``train_less``), and the student without a teacher for those of its
distillation (``train_more``) and for twice its steps (``train_twice``). One thread per seed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import logging
import math
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from compression_models import SmallResNet, cpu_kind, data_argument, fashion_mnist
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_green import KnowledgeDistillation, Pruning, QuantizationAwareTraining
from lightning_green.compression import export, onnx_session

BATCH = 64
RATE = 0.1
TEACHER_SEED, TEACHER_BATCH, TEACHER_RATE = 1000, 128, 0.2
# 97.5 % quantiles of Student's t by degrees of freedom.
_T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


class Batches(IterableDataset[Any]):
    """Shuffled batches."""

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
            yield self.x[chosen], self.y[chosen]


def network(width: int) -> SmallResNet:
    """Return an untrained network."""
    found = SmallResNet(width, blocks=1, channels=1)
    if width >= 8:  # faster on CPUs; with four channels PyTorch 2.13 writes out of bounds
        found.to(memory_format=torch.channels_last)
    return found


class Lit(pl.LightningModule):
    """A classifier with a one-cycle learning rate."""

    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.network = network(width)
        self.rate = rate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        """Return SGD and its schedule."""
        optimizer = torch.optim.SGD(self.parameters(), self.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=steps + 1, pct_start=0.2)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def onnx_outputs(file: Path, x: Tensor) -> Tensor:
    session = onnx_session(file)
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: x[i : i + 250].numpy()})[0] for i in range(0, len(x), 250)]
    return torch.from_numpy(np.concatenate(parts))


@torch.no_grad()
def outputs(network: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([network(x[i : i + 250]) for i in range(0, len(x), 250)])


def points(logits: Tensor, y: Tensor) -> float:
    return 100 * float((logits.argmax(1) == y).float().mean())


def train(
    seed: int,
    data: tuple[Tensor, ...],
    steps: int,
    callbacks: list[Callback],
    width: int,
    batch: int = BATCH,
    rate: float = RATE,
) -> tuple[Lit, float]:
    """Return the trained module and the CPU seconds of its training."""
    torch.manual_seed(seed)
    module = Lit(width, rate)
    trainer = pl.Trainer(
        max_epochs=-1,
        max_steps=steps,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.process_time()
    trainer.fit(module, DataLoader(Batches(data[0], data[1], batch, seed), batch_size=None))
    return module.eval(), time.process_time() - start


def quiet() -> None:
    """Use one thread and suppress log messages and warnings."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def train_teacher(file: Path, data_folder: Path, epochs: int, width: int) -> tuple[float, float]:
    """Write the weights of a model trained on all images; return its accuracy and CPU seconds."""
    quiet()
    x, y, x_test, y_test = fashion_mnist(data_folder)
    steps = epochs * (len(y) // TEACHER_BATCH)
    module, seconds = train(TEACHER_SEED, (x, y), steps, [], width, TEACHER_BATCH, TEACHER_RATE)
    torch.save(module.network.state_dict(), file)
    return points(outputs(module.network, x_test), y_test), seconds


def interval(values: list[float]) -> list[float]:
    """Return the 95 % interval of a mean."""
    if len(values) < 2:
        return []  # one seed has no spread
    half = _T.get(len(values) - 1, 2.0) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return [round(float(np.mean(values)) - half, 3), round(float(np.mean(values)) + half, 3)]


class Simulated(nn.Module):
    """A module's network in fake quantization."""

    def __init__(self, callback: QuantizationAwareTraining, module: Lit) -> None:
        super().__init__()
        self.callback, self.module = callback, [module]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        assert self.callback.quantized is not None
        return self.callback.quantized.run(x, training=False)


def one_seed(
    seed: int, teacher_file: Path, data_folder: Path, images: int, epochs: int, width: int
) -> dict[str, float]:
    """Return all figures of one seed."""
    quiet()
    x, y, x_test, y_test = fashion_mnist(data_folder)
    data = (x[:images], y[:images])
    all_steps = epochs * (images // BATCH)

    def run(callbacks: list[Callback], wide: int = width, share: float = 1.0) -> tuple[Lit, float]:
        return train(seed, data, max(2, round(all_steps * share)), callbacks, wide)

    def accuracy(module: Lit) -> float:
        return points(outputs(module.network, x_test), y_test)

    plain, plain_seconds = run([])
    base = accuracy(plain)
    found = {"plain_accuracy": base, "plain_cpu_seconds": plain_seconds}

    pruned, seconds = run([Pruning(0.5, "channels", begin=0.1, end=0.4, round_to=8)])
    found["channel_pruned_50_points"] = accuracy(pruned) - base
    found["channel_pruned_50_cpu_ratio"] = share = seconds / plain_seconds
    sizes = [sum(p.numel() for p in module.parameters()) for module in (pruned, plain)]
    found["channel_pruned_50_parameters_ratio"] = sizes[0] / sizes[1]
    control, _ = run([], share=share)
    found["train_less_control_points"] = accuracy(control) - base

    qat = QuantizationAwareTraining(begin=0.85, freeze=0.95)
    module, seconds = run([qat])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        export(qat.convert(module), file, [x_test[:500]])
        int8 = onnx_outputs(file, x_test)
    found["int8_points"] = points(int8, y_test) - base
    found["int8_cpu_ratio"] = seconds / plain_seconds
    simulated = outputs(Simulated(qat, module), x_test)
    found["int8_agreement"] = float((simulated.argmax(1) == int8.argmax(1)).float().mean())

    found["sparse_80_points"] = accuracy(run([Pruning(0.8)])[0]) - base
    found["nm_2_4_points"] = accuracy(run([Pruning(granularity="2:4", begin=0.1, end=0.5)])[0]) - base

    narrow = max(4, width // 2)
    alone, alone_seconds = run([], narrow)
    found["student_accuracy"] = student = accuracy(alone)
    found["student_train_accuracy"] = points(outputs(alone.network, data[0]), data[1])
    teacher = network(width)
    teacher.load_state_dict(torch.load(teacher_file, weights_only=True))
    distilled, seconds = run([KnowledgeDistillation(teacher, cache="memory")], narrow)
    found["distilled_points"] = accuracy(distilled) - student
    found["distilled_cpu_ratio"] = share = seconds / alone_seconds
    found["train_more_control_points"] = accuracy(run([], narrow, share)[0]) - student
    found["train_twice_control_points"] = accuracy(run([], narrow, 2.0)[0]) - student
    by_plain, _ = run([KnowledgeDistillation(plain.network, cache="memory")], narrow)
    found["distilled_by_plain_points"] = accuracy(by_plain) - student
    print(
        json.dumps({"seed": seed} | {key: round(value, 4) for key, value in found.items()}), file=sys.stderr, flush=True
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    data_argument(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=2_000, help="training images, except for the teacher")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--teacher-epochs", type=int, default=2, help="epochs of the teacher, on all 60,000 images")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="seeds in parallel, one thread each")
    arguments = parser.parse_args()
    fashion_mnist(arguments.data)  # exits if it is missing
    figures: dict[str, Any] = {
        "n": arguments.seeds,
        "images": arguments.images,
        "epochs": arguments.epochs,
        "steps": arguments.epochs * (arguments.images // BATCH),
        "width": arguments.width,
        "cpu": cpu_kind(),
        "load_average_before": os.getloadavg()[0],
    }
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ProcessPoolExecutor(arguments.jobs, context) as pool,
    ):
        file = Path(folder) / "teacher.pt"
        taught = pool.submit(train_teacher, file, arguments.data, arguments.teacher_epochs, arguments.width).result()
        figures |= {"teacher_accuracy": round(taught[0], 4), "teacher_cpu_seconds": round(taught[1], 1)}
        given = (file, arguments.data, arguments.images, arguments.epochs, arguments.width)
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        waiting = [pool.submit(one_seed, seed, *given) for seed in seeds]
        rows = [future.result() for future in waiting]
    for key in rows[0]:
        values = [row[key] for row in rows]
        figures[key] = round(float(np.mean(values)), 4)
        figures[f"{key}_interval"] = interval(values)
    figures["load_average_after"] = os.getloadavg()[0]
    print(json.dumps(figures) if arguments.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
