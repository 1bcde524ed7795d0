"""Kernels of NVIDIA GPUs for 2:4 sparse weights, for the layers that they make faster."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.sparse import SparseSemiStructuredTensor, to_sparse_semi_structured

from lightning_green.compression.network import kept_attributes, restored_modes
from lightning_green.compression.quantization.agreement import agreement, worst_agreement
from lightning_green.utilities.validation import check_number

log = logging.getLogger(__name__)

Mode = Literal["eager", "compiled", "graph"]
ROUNDS, CALLS = 7, 20
LARGEST_DIFFERENCE = 0.02
"""Accepted mean absolute difference of a layer's outputs, as a fraction of their standard deviation."""
MAX_SHAPES = 4


@dataclass(frozen=True)
class SparseLayer:
    """Result for one linear layer.

    Args:
        name: Name of the module.
        shape: Numbers of outputs and inputs.
        tokens: Rows of the input that it was measured with; the sum over calls of different shapes. 0 if it was not
            measured.
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

    The network is called a few times in evaluation mode. Each layer is measured with the inputs that it got, dense and
    sparse alternately, and keeps the sparse weight if it is faster and its outputs agree. Then the outputs of the whole
    network are compared; a layer with which they differ, or with which the network cannot be called, stays dense.

    A sparse kernel gains with large matrices only, and called eagerly it costs the host about 0.4 ms, so that far fewer
    layers gain than under CUDA graphs. The converted network is for inference on this device: the sparse weights get no
    gradient, are not meant to be saved, and may become dense when the network is moved. Call this function last, and
    keep the checkpoint.

    Args:
        network: A trained network on an NVIDIA GPU, with weights in float16 or bfloat16.
        *inputs: Inputs in the shapes in use.
        mode: How the network will be called: ``"eager"``, ``"compiled"`` (`torch.compile`) or ``"graph"`` (CUDA
            graphs, also those of ``torch.compile(mode="reduce-overhead")``).
        least_speedup: Smallest speedup at which a layer is converted, at least 1.

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
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    reasons = {name: _why_dense(layer) for name, layer in layers.items()}
    with _evaluation(network):
        reference = network(*inputs)
        calls = _recorded_inputs(network, inputs, [name for name, reason in reasons.items() if reason is None])
        found = [
            _measure(name, layer, reasons[name], calls.get(name, []), mode, least_speedup)
            for name, layer in layers.items()
        ]
        found = _convert(network, inputs, reference, layers, found)
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


@contextmanager
def _evaluation(network: nn.Module) -> Iterator[None]:
    """Call a network in evaluation mode inside the context, and restore its modes and attributes."""
    with restored_modes(network), kept_attributes(network), torch.no_grad():
        network.eval()
        yield


def _why_dense(layer: nn.Linear) -> str | None:
    """Return why a layer cannot be converted, as far as its weight shows it; None if it can be tried."""
    weight = layer.weight
    if not _is_converted(layer) and not is_2_4(weight):
        return "its weight is not 2:4 sparse"
    if weight.device.type != "cuda":
        return "it is not on an NVIDIA GPU"
    if weight.dtype not in (torch.float16, torch.bfloat16):
        return f"its weight is {weight.dtype}, use .bfloat16()".replace("torch.", "")
    return None


def _is_converted(layer: nn.Linear) -> bool:
    return isinstance(layer.weight, SparseSemiStructuredTensor)


def _recorded_inputs(network: nn.Module, inputs: tuple[Any, ...], names: Sequence[str]) -> dict[str, list[Tensor]]:
    """Return the inputs of linear layers in a call of the network, one for each of the first shapes."""
    calls: dict[str, list[Tensor]] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen, x = calls.setdefault(name, []), args[0] if args else kwargs["input"]
            if len(seen) < MAX_SHAPES and all(one.shape != x.shape for one in seen):
                seen.append(x.detach().clone())

        return record

    with ExitStack() as stack:
        for name in names:
            layer = network.get_submodule(name)
            stack.callback(layer.register_forward_pre_hook(recorder(name), with_kwargs=True).remove)
        network(*inputs)
    return calls


def _measure(
    name: str, layer: nn.Linear, reason: str | None, inputs: list[Tensor], mode: Mode, least_speedup: float
) -> SparseLayer:
    """Measure one layer; the reason is None if it can be converted."""
    shape = (layer.out_features, layer.in_features)
    tokens = sum(x.numel() // x.shape[-1] for x in inputs)
    speedup = None
    if _is_converted(layer):
        return SparseLayer(name, shape, 0, None, None)
    if reason is None and not inputs:
        reason = "it is not called with these inputs"
    if reason is None:
        weight, bias = layer.weight.detach(), layer.bias
        try:
            sparse = to_sparse_semi_structured(weight)
            outputs, expected = ([functional.linear(x, one, bias) for x in inputs] for one in (sparse, weight))
            difference = agreement(outputs, expected).difference
            if difference <= LARGEST_DIFFERENCE:
                speedup = _speedup(inputs, weight, sparse, bias, mode)
                reason = None if speedup >= least_speedup else f"{speedup:.2f} times as fast"
            else:
                reason = f"its outputs would differ by {difference:.3f} of their standard deviation"
        except torch.OutOfMemoryError:
            reason = "there is not enough memory to measure it"
        except Exception as error:  # noqa: BLE001 - a shape or a device without a kernel, or an error of the compiler
            reason = f"its sparse kernel fails: {_first_line(error)}"
    return SparseLayer(name, shape, tokens, speedup, reason)


def _convert(
    network: nn.Module,
    inputs: tuple[Any, ...],
    reference: Any,
    layers: Mapping[str, nn.Linear],
    found: list[SparseLayer],
) -> list[SparseLayer]:
    """Convert the measured layers; if the network then fails, those one by one with which it does not."""
    chosen = [layer.name for layer in found if layer.is_sparse and not _is_converted(layers[layer.name])]
    dense = {name: layers[name].weight for name in chosen}

    def set_sparse(name: str) -> None:
        layers[name].weight = nn.Parameter(to_sparse_semi_structured(dense[name].detach()), requires_grad=False)

    def restore(name: str) -> None:
        layers[name].weight = dense[name]

    for name in chosen:
        set_sparse(name)
    if not chosen or _why_different(network, inputs, reference) is None:
        return found
    for name in chosen:
        restore(name)
    reasons: dict[str, str] = {}
    for name in chosen:
        set_sparse(name)
        reason = _why_different(network, inputs, reference)
        if reason is not None:
            restore(name)
            reasons[name] = reason
    return [replace(layer, reason=reasons.get(layer.name, layer.reason)) for layer in found]


def _why_different(network: nn.Module, inputs: tuple[Any, ...], reference: Any) -> str | None:
    """Return why the converted network cannot be used: it raises, or its outputs differ; None if it can."""
    for mode in (torch.no_grad, torch.inference_mode):  # some layers call other operations in inference mode
        try:
            with mode():
                difference = worst_agreement([network(*inputs)], [reference]).difference
        except Exception as error:  # noqa: BLE001 - operations without a sparse kernel raise errors of many types
            return f"the network cannot be called with its sparse kernel: {_first_line(error)}"
        if not difference <= LARGEST_DIFFERENCE:
            return f"the outputs of the network would differ by {difference:.3f} of their standard deviation"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _speedup(inputs: list[Tensor], weight: Tensor, sparse: Tensor, bias: Tensor | None, mode: Mode) -> float:
    """Return the median over rounds of dense time divided by sparse time, measured alternately."""

    def work(kernel: Tensor) -> Callable[[], Any]:
        def run() -> list[Tensor]:
            return [functional.linear(x, kernel, bias) for x in inputs]  # a compiler drops what is not returned

        assert isinstance(run, FunctionType)
        return _prepared(run, mode)

    dense_work, sparse_work = work(weight.detach()), work(sparse)
    return statistics.median(_seconds(dense_work) / _seconds(sparse_work) for _ in range(ROUNDS))


def _prepared(run: FunctionType, mode: Mode) -> Callable[[], Any]:
    """Return the call as it is made in a mode, after its first calls."""
    call: Callable[[], Any] = run
    if mode == "compiled":
        run.__code__ = run.__code__.replace()  # the compiler limits how often one code object is compiled
        call = torch.compile(run, fullgraph=True, dynamic=False)
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    if mode != "graph":
        return call
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    replayed: Callable[[], Any] = graph.replay
    return replayed


def _seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of several calls, host and device."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    torch.cuda.synchronize()
    return time.perf_counter() - began
