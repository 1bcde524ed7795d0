"""Fake quantization of a network by two graphs, one for training and one for evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from lightning_green.compression.quantization.exported import export_graph
from lightning_green.compression.quantization.fake_quantize import (
    ACTIVATIONS,
    WEIGHT_BITS,
    ActivationFakeQuantize,
    WeightFakeQuantize,
    check_weight_bits,
)
from lightning_green.compression.quantization.graph_hooks import call_hooks, replace_uses
from lightning_green.compression.quantization.int8 import Rounding, to_int8
from lightning_green.compression.quantization.rounding_points import RoundingPoints, find_rounding_points
from lightning_green.utilities.validation import check_choice


class QuantizedNetwork:
    """Fake quantization of a network, without a Trainer.

    The network does not change. The graphs share its parameters and buffers, so an optimizer of the network's
    parameters trains through them, and its checkpoints keep their names.

    Args:
        network: The network.
        inputs: Inputs with at least two samples along dimension 0. The graphs accept other numbers of samples.
        keep_float: Patterns of modules that stay in float.
        activation: ``"uint8"`` for ONNX Runtime and Inductor on x86, ``"int8"`` for XNNPACK (ExecuTorch).
        weight_bits: 7 or 8. None for 7 with ``"uint8"``, which is exact on every x86 processor, and 8 with ``"int8"``.
            Eight bits are slightly finer, but with ``"uint8"`` they overflow on processors without VNNI.

    Raises:
        ValueError: If the network cannot be exported, a pattern matches nothing, or training and evaluation have
            different operations.

    Examples:
        ```python
        quantized = QuantizedNetwork(network, (torch.randn(2, 3, 32, 32),))
        loss = criterion(quantized.run(x), y)    # trains the parameters of `network` itself
        int8 = quantized.convert()
        ```

    """

    def __init__(
        self,
        network: nn.Module,
        inputs: tuple[Tensor, ...],
        keep_float: Sequence[str] = (),
        activation: str = "uint8",
        weight_bits: int | None = None,
    ) -> None:
        check_choice("activation", activation, ACTIVATIONS)
        check_weight_bits(weight_bits)
        self.weight_bits = weight_bits or WEIGHT_BITS[activation]
        self.network = network
        with torch.inference_mode(False):
            self.inputs = tuple(tensor.detach().clone() for tensor in inputs)
        self.keep_float, self.activation = tuple(keep_float), activation
        self.observing = True
        with torch.inference_mode(False), torch.enable_grad():
            self._graphs = {mode: export_graph(network, self.inputs, training=mode) for mode in (True, False)}
        points = [find_rounding_points(graph, self.keep_float) for graph in self._graphs.values()]
        first, second = ([(key, str(node.target)) for key, node in p.values.items()] for p in points)
        if first != second or points[0].weights.keys() != points[1].weights.keys():
            raise ValueError(
                f"{type(network).__name__} should have the same operations in training and in evaluation to be "
                "quantized. Move operations of only one mode out of the network."
            )
        self.roundings = {key: ActivationFakeQuantize(activation) for key in points[0].values}
        for graph, chosen in zip(self._graphs.values(), points, strict=True):
            _insert(graph, chosen, self.roundings, self.weight_bits)
            call_hooks(graph, network)

    def run(self, *inputs: Tensor, training: bool = True, observe: bool | None = None) -> Any:
        """Return the network's output in fake quantization.

        Args:
            inputs: Inputs of the network.
            training: Whether layers such as dropout and batch norm are in training mode.
            observe: Whether to update the ranges of activations. None to update them in training while ``observing``.

        """
        observe = training and self.observing if observe is None else observe
        for rounding in self.roundings.values():
            rounding.observing = observe
        return self._graphs[training](*inputs)

    def has_unseen(self) -> bool:
        """Return whether an activation has no range."""
        return any(rounding.count == 0 for rounding in self.roundings.values())

    def share_tensors(self) -> None:
        """Share the network's current tensors. A move to another device replaces its buffers."""
        for graph in self._graphs.values():
            for path, module in graph.named_modules():
                if path.startswith(("round_", "hooks_", "before_")):
                    continue
                for own in (module._parameters, module._buffers):
                    for name in own:
                        own[name] = _tensor(self.network, f"{path}.{name}" if path else name)

    def convert(self) -> GraphModule:
        """Return a copy on the CPU that computes with 8-bit integers, with int8 weights and folded batch norm.

        Raises:
            ValueError: If fake quantization has observed no data.

        """
        network = copy.deepcopy(self.network).cpu().float()
        inputs = tuple(tensor.cpu().float() if tensor.is_floating_point() else tensor.cpu() for tensor in self.inputs)
        ranges = {}
        for key, rounding in self.roundings.items():
            scale, zero_point = rounding.quantization_parameters()
            ranges[key] = Rounding(scale.item(), int(zero_point.item()), rounding.quant_min, rounding.quant_max)
        return to_int8(network, inputs, ranges, self.keep_float, self.weight_bits)

    def state_dict(self) -> dict[str, Any]:
        """Return the ranges of the activations."""
        return {key: rounding.observed() for key, rounding in self.roundings.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the ranges of the same network.

        Raises:
            ValueError: If the ranges are those of another network.

        """
        if state.keys() != self.roundings.keys():
            raise ValueError(
                f"The checkpoint has ranges of {len(state)} activations, but the network has {len(self.roundings)}. "
                "Load it into the same network with the same `keep_float`."
            )
        for key, rounding in self.roundings.items():
            rounding.restore(state[key])


def quantize(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, ...] | Tensor],
    keep_float: Sequence[str] = (),
    activation: str = "uint8",
    weight_bits: int | None = None,
) -> GraphModule:
    """Quantize a trained network without further training.

    Args:
        network: The network, which does not change.
        batches: Inputs with at least two samples each. A few hundred samples suffice to calibrate the ranges.
        keep_float: Patterns of modules that stay in float.
        activation: As in ``QuantizedNetwork``.
        weight_bits: As in ``QuantizedNetwork``.

    Returns:
        The model in int8, on the CPU.

    Raises:
        ValueError: If there is no batch, or the network cannot be quantized.

    Examples:
        ```python
        int8 = quantize(network, [images for images, _ in loader])
        ```

    """
    quantized = None
    for batch in batches:
        inputs = (batch,) if isinstance(batch, Tensor) else tuple(batch)
        if quantized is None:
            quantized = QuantizedNetwork(network, inputs, keep_float, activation, weight_bits)
        with torch.no_grad():
            quantized.run(*inputs, training=False, observe=True)
    if quantized is None:
        raise ValueError("`batches` should contain at least one batch, got none.")
    return quantized.convert()


def _insert(
    graph_module: GraphModule, points: RoundingPoints, roundings: Mapping[str, nn.Module], weight_bits: int
) -> None:
    graph = graph_module.graph
    graph_module.add_submodule("round_weight", WeightFakeQuantize(weight_bits))
    for operation in points.weights.values():
        with graph.inserting_before(operation):
            rounded = graph.call_module("round_weight", (operation.args[1],))
        operation.update_arg(1, rounded)
    for key, node in points.values.items():
        graph_module.add_submodule(f"round_{key}", roundings[key])
        with graph.inserting_after(node):
            rounded = graph.call_module(f"round_{key}", (node,))
        replace_uses(node, rounded)
    graph.lint()
    graph_module.recompile()


def _tensor(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)
