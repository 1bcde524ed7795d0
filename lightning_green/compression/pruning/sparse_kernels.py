"""Kernels of NVIDIA GPUs for 2:4 sparse weights, for the layers that they make faster."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.sparse import to_sparse_semi_structured

from lightning_green.compression.network import kept_attributes, restored_modes
from lightning_green.utilities.validation import check_number

log = logging.getLogger(__name__)

Mode = Literal["eager", "compiled", "graph"]
ROUNDS, CALLS = 7, 20
LARGEST_DIFFERENCE = 0.02
"""Accepted mean absolute difference of a layer's outputs, as a fraction of their standard deviation."""
MAX_SHAPES = 4


@dataclass(frozen=True)
class SparseLayer:
    """What has become of one linear layer.

    Args:
        name: Name of the module.
        shape: Numbers of outputs and inputs.
        tokens: Rows of the input that it was measured with; the sum over calls of different shapes.
        speedup: Time of the dense layer divided by that of the sparse one; None if it was not measured.
        reason: Why it stays dense; None if it is sparse now.

    """

    name: str
    shape: tuple[int, int]
    tokens: int
    speedup: float | None
    reason: str | None

    @property
    def is_sparse(self) -> bool:
        """Whether the layer uses a sparse kernel now."""
        return self.reason is None


def use_sparse_kernels(
    network: nn.Module, *inputs: Any, mode: Mode = "eager", least_speedup: float = 1.02
) -> list[SparseLayer]:
    """Let the linear layers with 2:4 sparse weights use sparse tensor cores where that is faster.

    The network is called once. Each layer is then measured with the inputs that it got, dense and sparse by turns, and
    keeps the sparse weight if it is faster and its outputs agree. A sparse kernel gains with large matrices only, and
    called eagerly it costs the host about 0.4 ms, so that far fewer layers gain than under CUDA graphs. The converted
    network is for inference: the sparse weights get no gradient.

    Args:
        network: A trained network on an NVIDIA GPU, with weights in float16 or bfloat16.
        *inputs: Inputs in the shapes in use.
        mode: How the network will be called: ``"eager"``, ``"compiled"`` (`torch.compile`) or ``"graph"`` (CUDA
            graphs, also those of ``torch.compile(mode="reduce-overhead")``).
        least_speedup: Speedup above which a layer is converted, at least 1.

    Returns:
        One entry for each linear layer, in the order of the modules.

    Raises:
        ValueError: If ``mode`` is unknown or ``least_speedup`` is below 1.

    Examples:
        ```python
        module = LitModel.load_from_checkpoint("last.ckpt").cuda().bfloat16()  # with Pruning(granularity="2:4")
        layers = use_sparse_kernels(module.net, images, mode="graph")
        ```

    """
    if mode not in get_args(Mode):
        raise ValueError(f"`mode` should be one of {', '.join(get_args(Mode))}, got {mode!r}.")
    check_number("least_speedup", least_speedup, 1.0)
    calls = _recorded_inputs(network, inputs)
    found = [
        _convert(name, layer, calls.get(name, []), mode, least_speedup)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    sparse = [layer for layer in found if layer.is_sparse]
    line = f"{len(sparse)} of {len(found)} linear layers use sparse kernels"
    if len(sparse) < len(found):
        line += "; dense: " + "; ".join(f"`{layer.name}` ({layer.reason})" for layer in found if not layer.is_sparse)
    log.info("%s.", line)
    return found


def is_2_4(weight: Tensor) -> bool:
    """Return whether each group of four neighboring inputs has two zeros or more.

    Args:
        weight: Weight of a linear layer, shape ``(outputs, inputs)``.

    """
    if weight.shape[1] % 4:
        return False
    return bool(((weight.detach().reshape(-1, 4) != 0).sum(dim=1) <= 2).all())


def _recorded_inputs(network: nn.Module, inputs: tuple[Any, ...]) -> dict[str, list[Tensor]]:
    """Return the inputs of each linear layer in a call of the network, one for each of the first shapes."""
    calls: dict[str, list[Tensor]] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def record(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen = calls.setdefault(name, [])
            if args and len(seen) < MAX_SHAPES and all(one.shape != args[0].shape for one in seen):
                seen.append(args[0].detach().clone())

        return record

    with ExitStack() as stack:
        stack.enter_context(restored_modes(network))
        stack.enter_context(kept_attributes(network))
        stack.enter_context(torch.no_grad())
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Linear):
                stack.callback(layer.register_forward_pre_hook(recorder(name)).remove)
        network.eval()
        network(*inputs)
    return calls


def _convert(name: str, layer: nn.Linear, inputs: list[Tensor], mode: Mode, least_speedup: float) -> SparseLayer:
    """Convert one layer if that is possible and faster."""
    shape = (layer.out_features, layer.in_features)
    tokens = sum(x.numel() // x.shape[-1] for x in inputs)

    def dense(reason: str, speedup: float | None = None) -> SparseLayer:
        return SparseLayer(name, shape, tokens, speedup, reason)

    weight, bias = layer.weight, layer.bias
    if not inputs:
        return dense("it is not called with these inputs")
    if not is_2_4(weight):
        return dense("its weight is not 2:4 sparse")
    if weight.device.type != "cuda":
        return dense("it is not on an NVIDIA GPU")
    if weight.dtype not in (torch.float16, torch.bfloat16):
        return dense(f"its weight is {weight.dtype}, use .bfloat16()".replace("torch.", ""))
    try:
        with torch.no_grad():
            sparse = to_sparse_semi_structured(weight.detach())
            difference = max(_difference(x, weight, sparse, bias) for x in inputs)
            if not difference <= LARGEST_DIFFERENCE:
                return dense(f"its outputs would differ by {difference:.3f} of their standard deviation")
            speedup = _speedup(inputs, weight, sparse, bias, mode)
    except (RuntimeError, NotImplementedError, ValueError) as error:  # a shape or a device without a kernel
        return dense(f"there is no sparse kernel for it: {str(error).splitlines()[0]}")
    if speedup < least_speedup:
        return dense(f"{speedup:.2f} times as fast", speedup)
    layer.weight = nn.Parameter(sparse, requires_grad=False)
    return SparseLayer(name, shape, tokens, speedup, None)


def _difference(x: Tensor, weight: Tensor, sparse: Tensor, bias: Tensor | None) -> float:
    """Return the mean absolute difference of the outputs as a fraction of their standard deviation."""
    reference = functional.linear(x, weight, bias).float()
    outputs = functional.linear(x, sparse, bias).float()
    deviation = float(reference.std(correction=0))
    difference = float((outputs - reference).abs().mean())
    return difference / deviation if deviation else difference


def _speedup(inputs: list[Tensor], weight: Tensor, sparse: Tensor, bias: Tensor | None, mode: Mode) -> float:
    """Return the median over rounds of dense time divided by sparse time, measured by turns."""

    def work(kernel: Tensor) -> Callable[[], None]:
        def run() -> None:
            for x in inputs:
                functional.linear(x, kernel, bias)

        return _prepared(run, mode)

    dense_work, sparse_work = work(weight.detach()), work(sparse)
    ratios = []
    for number in range(ROUNDS):
        pair = (dense_work, sparse_work) if number % 2 == 0 else (sparse_work, dense_work)
        times = {id(one): _seconds(one) for one in pair}
        ratios.append(times[id(dense_work)] / times[id(sparse_work)])
    return statistics.median(ratios)


def _prepared(run: Callable[[], None], mode: Mode) -> Callable[[], None]:
    """Return the call as it is made in a mode, after its first calls."""
    call: Callable[[], None] = torch.compile(run) if mode == "compiled" else run
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    if mode != "graph":
        return call
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _seconds(call: Callable[[], None]) -> float:
    """Return the seconds of several calls, host and device."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    torch.cuda.synchronize()
    return time.perf_counter() - began
