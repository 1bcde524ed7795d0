"""Speedup of 2:4 sparse kernels over dense ones on an NVIDIA GPU, by the size of the layer and the way it is called.

    python benchmarks/sparse_kernels.py --json [--tokens 4096] [--modes eager graph]

For each layer (outputs x inputs, bfloat16): the speedup that `use_sparse_kernels` measures, and whether it converts the
layer. `null` and a reason where there is no kernel, and on a machine without an NVIDIA GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from lightning_green.compression import n_m_mask, use_sparse_kernels

SHAPES = (
    (11008, 4096), (8192, 8192), (4096, 4096), (2048, 2048), (3072, 768), (1024, 1024), (768, 3072),
)  # fmt: skip


def speedup(outputs: int, inputs: int, tokens: int, mode: str) -> dict[str, object]:
    """Return the figures of one layer."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device("meta" if device == "cpu" else device):
        layer = nn.Linear(inputs, outputs, dtype=torch.bfloat16)
    result: dict[str, object] = {"layer": f"{outputs} x {inputs}", "tokens": tokens, "mode": mode}
    if device == "cpu":
        return result | {"speedup": None, "reason": "needs an NVIDIA GPU"}
    layer.weight.data.mul_(n_m_mask(layer.weight.detach().abs(), 2, 4))
    x = torch.randn(tokens, inputs, device=device, dtype=torch.bfloat16)
    (found,) = use_sparse_kernels(nn.Sequential(layer), x, mode=mode)
    return result | {"speedup": found.speedup and round(found.speedup, 3), "reason": found.reason}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--tokens", type=int, default=4096, help="rows of the input")
    parser.add_argument("--modes", nargs="+", choices=["eager", "compiled", "graph"], default=["eager", "graph"])
    arguments = parser.parse_args()
    layers = [speedup(*shape, arguments.tokens, mode) for mode in arguments.modes for shape in SHAPES]
    print(json.dumps({"layers": layers}, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
