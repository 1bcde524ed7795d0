"""Measure `GreenMixedPrecision` against Lightning's `MixedPrecision` and float32.

    python benchmarks/precision.py --data DIR --json [--device cpu|cuda] [--sessions N] [--seeds N]
    python benchmarks/precision.py --quick --json --device cuda

`cells`: the same network is trained on the same data with `GreenMixedPrecision`, Lightning's plugin and in float32.
The trainings alternate in one process, one block of optimizer steps each, and the order is reversed after each round.
The memory addresses of a training change its step time by some percent, so each of the `n` sessions starts new
trainings. The value of a session is the median over its pairs of adjacent blocks. `step_ratio_to_lightning` and
`speedup_to_fp32` are medians over the sessions, with 95 % bootstrap intervals. On a CPU, the time of a step is the CPU
time of its thread, which other processes hardly affect. On a GPU, the wall time of a block is measured, with a
synchronization at both ends. If Lightning raises (a fused optimizer with clipping), the cell reports it and compares
with the unfused optimizer. `memory_ratio_to_lightning` compares the peak of the allocated GPU memory, or on a CPU the
peak resident set of a forked process, which is accurate to 2 %. `final_loss` is the mean over eight batches after 50
steps.

`cache`: `cache=True` against `cache=False`, for a network that uses each weight once or four times in a step.

`accuracy`: Fashion-MNIST, 10,000 test images, by precision and seed, with the differences to float32 in points.

`--quick` limits the cells to fused AdamW without accumulation, with and without clipping by the norm, and omits memory,
losses and the other parts: step times of 12 sessions in under four minutes on a GPU.

`resnet50`: a ResNet-50, channels last, batch size 256, without TF32; GPU only.
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
from precision_cases import BATCH, CLIPPINGS, OPTIMIZERS, WIDTH, Case, Endless, Sessions, TimedTurns, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_green import GreenMixedPrecision
from lightning_green.precision.choice import NAMES, device_support


def cell(
    dtype: str, accumulation: int, optimizer: str, clipping: str, device: str, sessions: int, times_only: bool = False
) -> dict[str, Any]:
    """Return the figures of one cell."""
    common = (accumulation, clipping, device)
    green = Case(lambda: GreenMixedPrecision(dtype), optimizer, *common)
    lightning = Case(lambda: MixedPrecision(NAMES[dtype], device), optimizer, *common)
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
    if lightning.unsupported():
        result |= {"lightning": "unsupported", "compared_with": "adamw"}
        lightning.optimizer = "adamw"
    found = Sessions([green, lightning, full], sessions)
    result |= found.ratio("step_ratio_to_lightning", 0, 1) | found.ratio("speedup_to_fp32", 2, 0)
    if times_only:
        return result | {"step_ms": found.milliseconds(0), "n": found.n}
    losses = {}
    for name, case in (("green", green), ("lightning", lightning), ("fp32", full)):
        case.short(50)
        losses[name] = round(case.loss(), 6)
    result |= {
        "step_ms": found.milliseconds(0),
        "skipped_steps": green.made.skipped_steps,
        "final_loss": losses,
        "n": found.n,
    }
    result["memory_ratio_to_lightning"] = round(green.peak() / lightning.peak(), 4)
    return result


def cache(dtype: str, accumulation: int, uses: int, device: str, sessions: int) -> dict[str, Any]:
    """Return the effect of the autocast cache on a network that uses each weight ``uses`` times in a step."""
    on, off = (
        Case(lambda on=on: GreenMixedPrecision(dtype, cache=on), "adamw-fused", accumulation, "none", device, uses)
        for on in (True, False)
    )
    found = Sessions([on, off], sessions)
    return {
        "dtype": dtype,
        "accumulation": accumulation,
        "uses": uses,
        **found.ratio("step_ratio_to_no_cache", 0, 1),
        "memory_ratio_to_no_cache": round(on.peak() / off.peak(), 4),
        "n": found.n,
    }


class Images(pl.LightningModule):
    """A ResNet-50 for images on the device."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.on_step = ResNet50().to(memory_format=torch.channels_last), on_step

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        self.on_step()
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return a fused SGD."""
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, fused=True)


def resnet50(dtype: str, sessions: int, size: int = 10) -> dict[str, Any]:
    """Return the speedup of a ResNet-50 over float32 without TF32."""
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
    parser.add_argument("--quick", action="store_true", help="step times of the most important cells only")
    parser.add_argument("--sessions", type=int, help="sessions per cell; default: 20, or 12 with --quick")
    parser.add_argument("--seeds", type=int, default=3, help="trainings on Fashion-MNIST per precision")
    parser.add_argument("--epochs", type=int, default=3, help="epochs on Fashion-MNIST")
    parser.add_argument("--dtypes", nargs="+", choices=["bf16", "fp16"], default=["bf16", "fp16"])
    parser.add_argument("--accumulations", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--optimizers", nargs="+", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    parser.add_argument("--clippings", nargs="+", choices=list(CLIPPINGS), default=list(CLIPPINGS))
    parser.add_argument("--width", type=int, help="width of the layers; default: 128 on a CPU, 4096 on a GPU")
    parser.add_argument("--batch", type=int, help="batch size; default: 16 on a CPU, 64 on a GPU")
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.sessions = arguments.sessions or (12 if quick else 20)
    if quick:
        arguments.seeds, arguments.accumulations = 0, [1]
        arguments.optimizers, arguments.clippings = ["adamw-fused"], ["none", "norm"]

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    data = fashion_mnist(arguments.data) if arguments.seeds else None
    device, sessions = arguments.device, arguments.sessions
    WIDTH[device] = arguments.width or WIDTH[device]
    BATCH[device] = arguments.batch or BATCH[device]
    result: dict[str, Any] = {"device": device, "torch": torch.__version__, "lightning": pl.__version__, "cells": []}
    with contextlib.redirect_stdout(sys.stderr):
        for dtype in arguments.dtypes:
            for accumulation in arguments.accumulations:
                for optimizer in arguments.optimizers:
                    for clipping in arguments.clippings:
                        line = cell(dtype, accumulation, optimizer, clipping, device, sessions, times_only=quick)
                        result["cells"].append(line)
                        print(json.dumps(line))
        result["cache"] = [
            cache(dtype, accumulation, uses, device, sessions)
            for dtype in arguments.dtypes
            for accumulation in arguments.accumulations
            for uses in ((1, 4) if not quick else ())
        ]
        result["accuracy"] = None if data is None else accuracy(data, arguments.seeds, arguments.epochs, device)
        result["resnet50"] = (
            [resnet50(dtype, sessions) for dtype in arguments.dtypes] if device == "cuda" and not quick else None
        )
    reasons = {}
    if data is None:
        reasons["accuracy"] = "--quick" if quick else "--seeds 0"
    if device == "cpu":
        reasons["resnet50"] = "needs an NVIDIA GPU"
        if not all(line["dtype_in_hardware"] for line in result["cells"]):
            reasons["speedup_to_fp32"] = "this CPU emulates a low precision, which is slower than float32"
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
