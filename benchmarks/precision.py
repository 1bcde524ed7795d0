"""What does `GreenMixedPrecision` cost and bring against Lightning's `MixedPrecision` and against float32?

    python benchmarks/precision.py --data DIR --json [--device cpu|cuda] [--sessions N] [--seeds N]

`cells`: the same network and data in three trainings, ours, Lightning's and float32, which are alive in one process and
take turns, a block of optimizer steps each, in an order that is reversed every time. Where a training's objects happen
to lie in memory moves its steps by some per cent, so the trainings are begun anew in every one of `n` sessions; a
session counts by the median of its pairs of neighbouring blocks. `step_ratio_to_lightning` and `speedup_to_fp32` are
medians of the sessions, with the 95 % bootstrap interval. On a CPU a step counts by the processor time of its thread,
so that other processes do not move it; on a GPU a block counts by the clock, with the device waited for at its ends
alone. Where Lightning raises (a fused optimizer and clipping), the cell says so and compares with its unfused path.
`memory_ratio_to_lightning` is the peak of what was allocated on a GPU; on a CPU it is the peak of the resident set of a
forked process, which is only good to 2 %. `final_loss` is the mean of eight batches after 50 steps.

`cache`: ours with its autocast cache over ours without, on a network that uses each weight four times in a step.

`accuracy`: Fashion-MNIST, all 10,000 test images, by precision and seed; differences to float32 are in points.

`resnet50`: a ResNet-50, channels last, batch 256, without TF32; only on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import multiprocessing
import resource
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import torch
from compression_models import ResNet50, SmallResNet, data_argument, fashion_mnist, interval
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from turns import Turns

from lightning_green import GreenMixedPrecision
from lightning_green.precision.choice import NAMES, device_support

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 1e-3),
    "adamw-fused": lambda parameters: torch.optim.AdamW(parameters, 1e-3, fused=True),
}
CLIPPINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "norm": {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "norm"},
    "value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
}
WIDTH, DEPTH, BATCH = {"cpu": 128, "cuda": 4096}, {"cpu": 2, "cuda": 6}, {"cpu": 16, "cuda": 64}
BLOCKS, STEPS = 2, {"cpu": 6, "cuda": 25}  # blocks of a session that count, and optimizer steps of a block


class TimedTurns(Turns):
    """Times the blocks: on a GPU by the clock, on a CPU by the processor time of the thread."""

    def __init__(self, trainings: int, blocks: int, size: int, device: str) -> None:
        super().__init__(trainings, blocks + 1)
        self._size, self._on_gpu = size, device == "cuda"
        self._marks: list[list[float]] = [[] for _ in range(trainings)]
        self.seconds: list[list[float]] = [[] for _ in range(trainings)]

    def step(self, number: int) -> None:
        """Note that an optimizer step of a training begins; wait here where its turn is over."""
        if self.ended:
            return
        marks = self._marks[number]
        if self._on_gpu and len(marks) == self._size:
            torch.cuda.synchronize()
        marks.append(time.perf_counter() if self._on_gpu else time.thread_time())
        if len(marks) <= self._size:
            return
        if self._on_gpu:
            self.seconds[number].append((marks[-1] - marks[0]) / self._size)
        else:  # without the first, which finds the processor's caches full of another training
            self.seconds[number].append(statistics.median(b - a for a, b in pairwise(marks[1:])))
        marks.clear()
        self.pass_on(number)
        if not self.ended:
            marks.append(time.perf_counter() if self._on_gpu else time.thread_time())


class Endless(IterableDataset[Any]):
    """The same eight batches again and again, until ``ended``."""

    def __init__(self, batches: Sequence[Any], ended: Callable[[int], bool]) -> None:
        self.batches, self.ended = batches, ended

    def __iter__(self) -> Any:
        number = 0
        while not self.ended(number):
            yield self.batches[number % len(self.batches)]
            number += 1


class Lit(pl.LightningModule):
    """Classifies, and says when an optimizer step begins."""

    def __init__(
        self, network: nn.Module, optimizer: str, accumulation: int, begins: Callable[[], None], uses: int = 1
    ) -> None:
        super().__init__()
        self.network, self.chosen, self.accumulation, self.begins, self.uses = (
            network,
            optimizer,
            accumulation,
            begins,
            uses,
        )
        self.losses: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        if batch_idx % self.accumulation == 0:
            self.begins()
        x, y = batch
        for _ in range(self.uses - 1):
            x = x + self.network[:-1](x)
        loss = nn.functional.cross_entropy(self.network(x).float(), y)
        self.losses = [*self.losses[-7:], loss.detach()]
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return OPTIMIZERS[self.chosen](self.parameters())


def layers(device: str) -> nn.Module:
    """Return linear layers, layer norms and a head, with the same weights each time."""
    torch.manual_seed(0)
    width = WIDTH[device]
    blocks = [
        module for _ in range(DEPTH[device]) for module in (nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
    ]
    return nn.Sequential(*blocks, nn.Linear(width, 10))


def batches(device: str) -> list[tuple[Tensor, Tensor]]:
    """Return eight batches whose class can be learnt."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(BATCH[device], WIDTH[device], generator=generator) for _ in range(8)]
    return [(x, x[:, :10].argmax(1)) for x in images]


def trainer(plugin: Any, device: str, **options: Any) -> pl.Trainer:
    """Return a Trainer that writes nothing; ``plugin`` None is float32."""
    quiet = ("enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        plugins=[] if plugin is None else [plugin],
        logger=False,
        default_root_dir=tempfile.gettempdir(),
        **dict.fromkeys(quiet, False),
        **{"max_epochs": 1, **options},
    )


class Case:
    """One training: a plugin, an optimizer, and the options of its Trainer."""

    def __init__(
        self, plugin: Callable[[], Any], optimizer: str, accumulation: int, clipping: str, device: str, uses: int = 1
    ) -> None:
        self.plugin, self.optimizer, self.accumulation, self.device = plugin, optimizer, accumulation, device
        self.clipping, self.uses = clipping, uses
        self.made: Any = None
        self.module: Lit | None = None

    def fit(self, begins: Callable[[], None], ended: Callable[[int], bool]) -> None:
        """Train until ``ended``; keep the plugin and the module."""
        self.made = self.plugin()
        self.module = Lit(layers(self.device), self.optimizer, self.accumulation, begins, self.uses)
        fit = trainer(self.made, self.device, accumulate_grad_batches=self.accumulation, **CLIPPINGS[self.clipping])
        fit.fit(self.module, DataLoader(Endless(batches(self.device), ended), batch_size=None))

    def short(self, steps: int = 12) -> None:
        """Train for so many optimizer steps."""
        self.fit(lambda: None, lambda number: number >= steps * self.accumulation)

    def loss(self) -> float:
        """Return the mean loss of the last eight batches."""
        assert self.module is not None
        return float(torch.stack(self.module.losses).mean())

    def unsupported(self) -> bool:
        """Return whether Lightning raises."""
        try:
            self.short(1)
        except RuntimeError as error:
            if "does not allow for gradient clipping" not in str(error):
                raise
            return True
        return False

    def peak(self) -> float:
        """Return the peak of memory in bytes: allocated on the GPU, or resident in a process of its own."""
        if self.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.short()
            return float(torch.cuda.max_memory_allocated())
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)

        def child() -> None:
            self.short()
            sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

        process = context.Process(target=child)
        process.start()
        sender.close()
        kilobytes = receiver.recv()
        process.join()
        return 1024.0 * float(kilobytes)


def take_turns(cases: Sequence[Case]) -> list[list[float]]:
    """Return for each case the seconds of an optimizer step in each block; the first block is left out, as warm-up."""
    device = cases[0].device
    turns, errors = TimedTurns(len(cases), BLOCKS, STEPS[device], device), []

    def train(number: int) -> None:
        turns.wait(number)
        try:
            cases[number].fit(lambda: turns.step(number), lambda _: turns.ended)
        except BaseException as error:
            errors.append(error)
            turns.end()
            raise

    threads = [threading.Thread(target=train, args=(number,)) for number in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [seconds[1:] for seconds in turns.seconds]


class Sessions:
    """What several sessions of the same cases found."""

    def __init__(self, cases: Sequence[Case], number: int) -> None:
        self.n = number
        self._of: list[list[list[float]]] = []
        for session in range(number):  # which is made first, and lies first in memory, goes by turns
            order = slice(None, None, 1 if session % 2 == 0 else -1)
            self._of.append(take_turns(cases[order])[order])

    def ratio(self, name: str, above: int, below: int) -> dict[str, Any]:
        """Return the median ratio of two cases, and its interval."""
        values = [
            statistics.median(a / b for a, b in zip(found[above], found[below], strict=True)) for found in self._of
        ]
        return {name: round(statistics.median(values), 4), f"{name}_interval": interval(values)}

    def milliseconds(self, case: int) -> float:
        """Return the median time of an optimizer step."""
        return round(1e3 * statistics.median(seconds for found in self._of for seconds in found[case]), 3)


def cell(dtype: str, accumulation: int, optimizer: str, clipping: str, device: str, sessions: int) -> dict[str, Any]:
    """Return one line of figures."""
    common = (accumulation, clipping, device)
    green = Case(lambda: GreenMixedPrecision(dtype), optimizer, *common)
    theirs = Case(lambda: MixedPrecision(NAMES[dtype], device), optimizer, *common)
    full = Case(lambda: None, optimizer, *common)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else torch.cpu.get_capabilities()["cpu_name"],
        "dtype": dtype,
        "dtype_in_hardware": getattr(device_support(torch.device(device)), "bf16" if dtype == "bf16" else "fp16_fast"),
        "accumulation": accumulation,
        "optimizer": optimizer,
        "clipping": clipping,
        "lightning": "supported",
    }
    if theirs.unsupported():
        result |= {"lightning": "unsupported", "compared_with": "adamw"}
        theirs.optimizer = "adamw"
    found = Sessions([green, theirs, full], sessions)
    result |= found.ratio("step_ratio_to_lightning", 0, 1) | found.ratio("speedup_to_fp32", 2, 0)
    losses = {}
    for name, case in (("green", green), ("lightning", theirs), ("fp32", full)):
        case.short(50)
        losses[name] = round(case.loss(), 6)
    result |= {
        "step_ms": found.milliseconds(0),
        "skipped_steps": green.made.skipped_steps,
        "final_loss": losses,
        "n": found.n,
    }
    result["memory_ratio_to_lightning"] = round(green.peak() / theirs.peak(), 4)
    return result


def cache(dtype: str, accumulation: int, device: str, sessions: int) -> dict[str, Any]:
    """Return what the cache of low-precision weights brings where each weight is used four times in a step."""
    on, off = (
        Case(lambda on=on: GreenMixedPrecision(dtype, cache=on), "adamw-fused", accumulation, "none", device, uses=4)
        for on in (True, False)
    )
    found = Sessions([on, off], sessions)
    return {
        "dtype": dtype,
        "accumulation": accumulation,
        **found.ratio("step_ratio_to_no_cache", 0, 1),
        "memory_ratio_to_no_cache": round(on.peak() / off.peak(), 4),
        "n": found.n,
    }


class Classifier(pl.LightningModule):
    """A classifier of Fashion-MNIST whose learning rate rises and falls once."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.network: nn.Module = SmallResNet(16, 1, channels=1)
        if device == "cpu":  # emulated convolutions would take hours
            sizes = ((784, 128), (128, 64))
            hidden = [m for i, o in sizes for m in (nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU())]
            self.network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self.network(batch[0]).float(), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the accuracy in points."""
        self.log("accuracy", 100.0 * (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        """Return AdamW, fused, and its schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def accuracy(data: tuple[Tensor, ...], seeds: int, epochs: int, device: str) -> dict[str, Any]:
    """Return the accuracy of each precision and seed, and the mean differences to float32."""
    x, y, x_test, y_test = data
    found: dict[str, list[float]] = {"fp32": [], "bf16": [], "fp16": []}
    skipped = dict.fromkeys(found, 0)
    for seed in range(seeds):
        for dtype, accuracies in found.items():
            pl.seed_everything(seed)
            plugin = GreenMixedPrecision(dtype)
            fit = trainer(plugin, device, max_epochs=epochs, gradient_clip_val=1.0)
            module = Classifier(device)
            loader = DataLoader(range(len(y)), 250, shuffle=True, collate_fn=lambda rows: (x[rows], y[rows]))
            fit.fit(module, loader)
            tested = DataLoader(range(len(y_test)), 1000, collate_fn=lambda rows: (x_test[rows], y_test[rows]))
            accuracies.append(round(fit.test(module, tested, verbose=False)[0]["accuracy"], 3))
            skipped[dtype] += plugin.skipped_steps
            print(f"{dtype}, seed {seed}: {accuracies[-1]} %", file=sys.stderr)
    result: dict[str, Any] = {"images": len(y), "epochs": epochs, "seeds": seeds, "points": found, "skipped": skipped}
    for dtype in ("bf16", "fp16"):
        differences = [a - b for a, b in zip(found[dtype], found["fp32"], strict=True)]
        result[f"{dtype}_minus_fp32_points"] = round(statistics.mean(differences), 3)
        result[f"{dtype}_minus_fp32_points_of_each_seed"] = [round(value, 3) for value in differences]
    return result


class Images(pl.LightningModule):
    """A ResNet-50 on images that are already on the device."""

    def __init__(self, begins: Callable[[], None]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.begins = ResNet50().to(memory_format=torch.channels_last), begins

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        self.begins()
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD, fused."""
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, fused=True)


def resnet50(dtype: str, sessions: int, size: int = 10) -> dict[str, Any]:
    """Return how much faster a ResNet-50 trains than in float32, TF32 off."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    x = torch.randn(256, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    y = torch.randint(1000, (256,), device="cuda")
    seconds: dict[str, list[float]] = {dtype: [], "fp32": []}
    for _ in range(sessions):
        for name, found in seconds.items():
            turns = TimedTurns(1, 1, size, "cuda")
            turns.wait(0)
            loader = DataLoader(Endless([(x, y)], lambda _, turns=turns: turns.ended), batch_size=None)
            trainer(GreenMixedPrecision(name), "cuda").fit(Images(lambda turns=turns: turns.step(0)), loader)
            found.append(turns.seconds[0][-1])
            gc.collect()
            torch.cuda.empty_cache()
    values = [full / low for full, low in zip(seconds["fp32"], seconds[dtype], strict=True)]
    return {
        "dtype": dtype,
        "speedup_to_fp32": round(statistics.median(values), 4),
        "speedup_to_fp32_interval": interval(values),
        "n": sessions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    data_argument(parser)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sessions", type=int, default=20, help="sessions of a cell")
    parser.add_argument("--seeds", type=int, default=3, help="trainings on Fashion-MNIST in each precision; 0 for none")
    parser.add_argument("--epochs", type=int, default=3, help="of each training on Fashion-MNIST")
    parser.add_argument("--dtypes", nargs="+", choices=["bf16", "fp16"], default=["bf16", "fp16"])
    parser.add_argument("--accumulations", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--optimizers", nargs="+", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    parser.add_argument("--clippings", nargs="+", choices=list(CLIPPINGS), default=list(CLIPPINGS))
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    data = fashion_mnist(arguments.data) if arguments.seeds else None
    device, sessions = arguments.device, arguments.sessions
    result: dict[str, Any] = {"device": device, "torch": torch.__version__, "lightning": pl.__version__, "cells": []}
    with contextlib.redirect_stdout(sys.stderr):
        for dtype in arguments.dtypes:
            for accumulation in arguments.accumulations:
                for optimizer in arguments.optimizers:
                    for clipping in arguments.clippings:
                        line = cell(dtype, accumulation, optimizer, clipping, device, sessions)
                        result["cells"].append(line)
                        print(json.dumps(line))
        result["cache"] = [cache(d, a, device, sessions) for d in arguments.dtypes for a in arguments.accumulations]
        result["accuracy"] = None if data is None else accuracy(data, arguments.seeds, arguments.epochs, device)
        result["resnet50"] = [resnet50(dtype, sessions) for dtype in arguments.dtypes] if device == "cuda" else None
    reasons = {}
    if data is None:
        reasons["accuracy"] = "--seeds 0"
    if device == "cpu":
        reasons["resnet50"] = "needs an NVIDIA GPU"
        if not all(line["dtype_in_hardware"] for line in result["cells"]):
            reasons["speedup_to_fp32"] = "this CPU only emulates the low precisions, so none can be faster than float32"
    result["reasons"] = reasons
    if arguments.json:
        print(json.dumps(result))
        return
    for line in result["cells"]:
        print(", ".join(f"{key} {value}" for key, value in line.items()))
    for key in ("cache", "accuracy", "resnet50", "reasons"):
        print(f"{key:<12}{result[key]}")


if __name__ == "__main__":
    main()
