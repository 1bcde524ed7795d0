"""Measure size and latency of pruned and int8 models in ONNX Runtime with two threads.

    python benchmarks/compression_latency.py --json

ResNet-50 and MobileNetV2 at 224 x 224, batch 1, and a CIFAR ResNet at batch 32, with untrained weights. Half of
ResNet-50's parameters are removed as channels. The models of a comparison take turns. A model's latency is the smallest
mean of its blocks, and a ratio is the median of the ratios within the blocks. Run it on an idle machine. ``cpu``
contains the processor's instruction set, because integer products gain most from VNNI.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compression_models import MobileNetV2, ResNet50, SmallResNet, cpu_kind, interval
from torch import Tensor, nn

from lightning_green.compression import ChannelPruner, export, onnx_session

THREADS = 2


def latencies(paths: dict[str, Path], inputs: np.ndarray, blocks: int, calls: int) -> dict[str, list[float]]:
    """Return the mean milliseconds of a call in each block; the models take turns."""
    sessions = {name: onnx_session(path, THREADS) for name, path in paths.items()}
    found: dict[str, list[float]] = {name: [] for name in paths}
    for block in range(blocks + 1):
        for name, session in sessions.items():
            fed = {session.get_inputs()[0].name: inputs}
            session.run(None, fed)
            start = time.perf_counter()
            for _ in range(calls):
                session.run(None, fed)
            if block:  # the first warms up
                found[name].append(1e3 * (time.perf_counter() - start) / calls)
    return found


def write(model: nn.Module, folder: Path, name: str, batch: Tensor, int8: bool) -> tuple[Path, int]:
    """Export a model without a tolerance, because its weights are untrained; return the path and the size in bytes."""
    path = folder / f"{name}.onnx"
    return path, export(model, path, [batch], int8=int8, tolerance=float("inf")).weight_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--calls", type=int, default=2)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    figures: dict[str, Any] = {"n": arguments.blocks, "threads": THREADS, "cpu": cpu_kind()}
    figures["load_average_before"] = os.getloadavg()[0]

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def compare(
            key: str, models: dict[str, nn.Module], batch: Tensor, calls: int
        ) -> tuple[dict[str, int], dict[str, list[float]]]:
            paths, sizes = {}, {}
            for name, model in models.items():
                for int8 in (False, True):
                    full = f"{name}_int8" if int8 else name
                    paths[full], sizes[full] = write(model, folder, f"{key}_{full}", batch, int8)
            shown = batch if key.startswith("cifar") else batch[:1]
            times = latencies(paths, shown.numpy(), arguments.blocks, calls)
            for name, values in times.items():
                figures[f"{key}_{name}_ms"] = round(min(values), 3)
                figures[f"{key}_{name}_mb"] = round(sizes[name] / 1e6, 3)
            return sizes, times

        def ratio(key: str, times: dict[str, list[float]], over: str, under: str) -> None:
            ratios = [a / b for a, b in zip(times[over], times[under], strict=True)]
            figures[key] = round(float(np.median(ratios)), 3)
            figures[f"{key}_interval"] = interval(ratios)

        network = ResNet50().eval()
        images = torch.randn(2, 3, 224, 224)
        smaller = copy.deepcopy(network)
        ChannelPruner(0.5, round_to=16).update(smaller, (images[:1],), 1.0)
        figures["resnet50_pruned_parameters_ratio"] = round(
            sum(p.numel() for p in smaller.parameters()) / sum(p.numel() for p in network.parameters()), 4
        )
        sizes, times = compare("resnet50", {"float": network, "pruned": smaller}, images, arguments.calls)
        ratio("resnet50_int8_speedup", times, "float", "float_int8")
        ratio("resnet50_pruned_int8_speedup", times, "float", "pruned_int8")
        ratio("resnet50_pruned_latency_ratio", times, "pruned", "float")
        figures["resnet50_pruned_int8_mb"] = round(sizes["pruned_int8"] / 1e6, 3)
        figures["resnet50_int8_bytes_ratio"] = round(sizes["float_int8"] / sizes["float"], 4)

        sizes, times = compare("mobilenetv2", {"float": MobileNetV2().eval()}, images, 4 * arguments.calls)
        ratio("mobilenetv2_int8_speedup", times, "float", "float_int8")
        figures["mobilenetv2_int8_bytes_ratio"] = round(sizes["float_int8"] / sizes["float"], 4)

        small = SmallResNet(width=64, blocks=2).eval()
        sizes, times = compare("cifar", {"float": small}, torch.randn(32, 3, 32, 32), arguments.calls)
        ratio("cifar_int8_speedup_b32", times, "float", "float_int8")
    figures["load_average_after"] = os.getloadavg()[0]
    print(json.dumps(figures) if arguments.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
