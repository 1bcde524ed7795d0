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
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import torch
from compression_models import ResNet50, data_argument, fashion_mnist, interval
from lightning.pytorch.plugins.precision import MixedPrecision
from precision_accuracy import accuracy
from precision_cases import CLIPPINGS, OPTIMIZERS, Case, Endless, Sessions, TimedTurns, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_green import GreenMixedPrecision
from lightning_green.precision.choice import NAMES, device_support


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
