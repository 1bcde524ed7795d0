"""Networks and data of the compression benchmarks."""

# ruff: noqa: D102 - `forward` needs no docstring
from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """A residual block of ResNet-50."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.down = None
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + (x if self.down is None else self.down(x)))


class ResNet50(nn.Module):
    """He et al., arXiv 1512.03385, with the stride in the 3x3 convolution."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        layers.append(nn.MaxPool2d(3, 2, 1))
        inputs = 64
        for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
            for block in range(count):
                layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
                inputs = 4 * width
        self.layers = nn.Sequential(*layers)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.layers(x)), 1))


class InvertedResidual(nn.Module):
    """A block of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        layers += [nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden)]
        layers += [nn.ReLU6(), nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers, self.residual = nn.Sequential(*layers), stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """Sandler et al., arXiv 1801.04381."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
        inputs = 32
        rows = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        for expansion, outputs, count, stride in rows:
            for block in range(count):
                layers.append(InvertedResidual(inputs, outputs, stride if not block else 1, expansion))
                inputs = outputs
        layers += [nn.Conv2d(inputs, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
        self.layers = nn.Sequential(*layers)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.layers(x)), 1))


class BasicBlock(nn.Module):
    """A residual block of the CIFAR ResNets."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.down = None
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.down is None else self.down(x)))


class SmallResNet(nn.Module):
    """A CIFAR ResNet of three stages: width, twice and four times that; ``blocks`` residual blocks in each."""

    def __init__(self, width: int = 16, blocks: int = 1, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
        for stage in range(3):
            for block in range(blocks):
                outputs = width * 2**stage
                layers.append(BasicBlock(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.layers(x)), 1))


def data_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--data`` and ``--json``."""
    parser.add_argument("--data", type=Path, default=os.environ.get("LIGHTNING_GREEN_DATA"), help="data directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def fashion_mnist(data: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images (standardized, ``(n, 1, 28, 28)``) and labels of training and test, or exit with code 2."""
    places = [] if data is None else [Path(data) / "fashion_mnist.npz", Path(data) / "images" / "fashion_mnist.npz"]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        print("fashion_mnist.npz is required in --data DIR or LIGHTNING_GREEN_DATA.", file=sys.stderr)
        sys.exit(2)
    with np.load(found) as file:
        arrays = [torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")]
    images = [a.reshape(-1, 1, 28, 28).float().div(255).sub(0.2860).div(0.3530) for a in (arrays[0], arrays[2])]
    return images[0], arrays[1].long(), images[1], arrays[3].long()


def cpu_kind() -> str:
    """Return the processor and its best instruction set for 8-bit products."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    known = next((kind for kind in ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2") if kind in flags), "?")
    name = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "?")
    return f"{name}, {known}"


def interval(values: list[float], seed: int = 0) -> list[float]:
    """Return a 95 % bootstrap interval of the median."""
    generator = random.Random(seed)
    medians = sorted(float(np.median(generator.choices(values, k=len(values)))) for _ in range(2000))
    return [round(medians[50], 4), round(medians[1949], 4)]
