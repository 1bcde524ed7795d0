"""The graphs of a network for one kind of call, in training and in evaluation mode, with fake quantization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from lightning_green.compression.inputs import Inputs, same_call, tensors_of
from lightning_green.compression.quantization.exported import export_graph
from lightning_green.compression.quantization.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize
from lightning_green.compression.quantization.graph_hooks import call_hooks, replace_uses
from lightning_green.compression.quantization.rounding_points import RoundingPoints, find_rounding_points


class CallGraphs:
    """Two graphs of a network for calls with the same arguments, which share the network's parameters and buffers.

    Args:
        network: The network.
        inputs: Inputs with at least two samples along dimension 0. The graphs accept other numbers of samples.
        keep_float: Patterns of modules that stay in float.

    Attributes:
        rounded: Key and operation of each rounded value.

    Raises:
        ValueError: If the network cannot be exported, a pattern matches nothing, or training and evaluation have
            different operations.

    """

    def __init__(self, network: nn.Module, inputs: Inputs, keep_float: Sequence[str] = ()) -> None:
        self.inputs = inputs
        self._network = network
        with torch.inference_mode(False), torch.enable_grad():
            self._exported = {mode: export_graph(network, inputs, training=mode) for mode in (True, False)}
        self._points = {mode: find_rounding_points(e.graph, keep_float) for mode, e in self._exported.items()}
        training, evaluation = (_operations(points) for points in self._points.values())
        if training != evaluation:
            raise ValueError(
                f"{type(network).__name__} should have the same operations in training and in evaluation to be "
                "quantized. Move operations of only one mode out of the network, or set `model` to a part of it."
            )
        self.rounded: list[tuple[str, str]] = training[0]

    def insert(self, roundings: Mapping[str, nn.Module], weight_bits: int) -> None:
        """Add the fake quantization of values and weights, and calls of the network's hooks, to the graphs."""
        for mode, exported in self._exported.items():
            _insert(exported.graph, self._points[mode], roundings, weight_bits)
            call_hooks(exported.graph, self._network)

    def fit(self, inputs: Inputs) -> bool:
        """Return whether the graphs are those of a call with these inputs."""
        return same_call(self.inputs, inputs)

    def run(self, inputs: Inputs, training: bool) -> Any:
        """Return the network's output for inputs that fit, computed by a graph."""
        exported = self._exported[training]
        return exported.output.restore(exported.graph(*tensors_of(inputs)))

    def graphs(self) -> list[GraphModule]:
        """Return the graphs of training and evaluation."""
        return [exported.graph for exported in self._exported.values()]

    def share_tensors(self) -> None:
        """Share the network's current tensors. A move to another device replaces its buffers."""
        for graph in self.graphs():
            for path, module in graph.named_modules():
                if isinstance(module, (ActivationFakeQuantize, WeightFakeQuantize)):
                    continue
                for own in (module._parameters, module._buffers):
                    for name in own:
                        own[name] = _tensor(self._network, f"{path}.{name}" if path else name)


def _operations(points: RoundingPoints) -> tuple[list[tuple[str, str]], list[str]]:
    return [(key, str(node.target)) for key, node in points.values.items()], sorted(points.weights)


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
