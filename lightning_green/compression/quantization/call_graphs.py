"""The graphs of a network for one kind of call, in every mode of its modules, with fake quantization."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from lightning_green.compression.call_description import CallDescription
from lightning_green.compression.inputs import Inputs, tensor_bytes, tensors_of
from lightning_green.compression.quantization.exported import ExportedNetwork, export_graph
from lightning_green.compression.quantization.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize
from lightning_green.compression.quantization.graph_hooks import call_hooks, replace_uses
from lightning_green.compression.quantization.module_settings import Key, ModuleSettings, Settings, changed_keys
from lightning_green.compression.quantization.rounding_points import RoundingPoints, find_rounding_points

MOST_GRAPHS = 8  # of one kind of call, before a warning
_NEVER_IGNORED = ("training", "hooks")


@dataclass
class _Graph:
    """A graph of one mode, and the modes and numbers of the modules for which it is right."""

    training: bool
    settings: list[Settings]
    exported: ExportedNetwork
    points: RoundingPoints
    text: str


class CallGraphs:
    """The graphs of a network for calls of one kind, which share the network's parameters and buffers.

    There is a graph for training and one for evaluation, and another one when modes or numbers of modules change, such
    as a batch norm that is put into evaluation mode, or the probability of a dropout.

    Args:
        network: The network.
        described: Description of the inputs.
        keep_float: Patterns of modules that stay in float.

    Attributes:
        rounded: Key and operation of each rounded value.
        float_weights: Names of the weights that stay in float.

    Raises:
        ValueError: If the network cannot be exported, a pattern matches nothing, or training and evaluation have
            different operations.

    """

    def __init__(self, network: nn.Module, described: CallDescription, keep_float: Sequence[str] = ()) -> None:
        self.described = described
        self._network, self._keep_float = network, tuple(keep_float)
        self._settings = ModuleSettings(network)
        self._roundings: Mapping[str, nn.Module] = {}
        self._weight_bits = 8
        self._unsupported = 0
        self._graphs = [self._export(mode) for mode in (True, False)]
        training, evaluation = (_operations(graph.points) for graph in self._graphs)
        if training != evaluation:
            raise ValueError(
                f"{type(network).__name__} should have the same operations in training and in evaluation to be "
                "quantized. Move operations of only one mode out of the network, or set `model` to a part of it."
            )
        self.rounded: list[tuple[str, str]] = training[0]
        self.float_weights = self._graphs[1].points.float_weights

    def insert(self, roundings: Mapping[str, nn.Module], weight_bits: int) -> None:
        """Add the fake quantization of values and weights, and calls of the network's hooks, to the graphs."""
        self._roundings, self._weight_bits = roundings, weight_bits
        for graph in self._graphs:
            self._insert(graph)

    def fit(self, inputs: Inputs) -> bool:
        """Return whether the graphs are those of a call with these inputs."""
        return self.described.fits(inputs)

    def run(self, inputs: Inputs, training: bool) -> Any:
        """Return the network's output for inputs that fit, computed by a graph."""
        settings = self._settings.read(training)
        fitting = (graph for graph in self._graphs if graph.training == training and settings in graph.settings)
        graph = next(fitting, None) or self._add(training, settings)
        return graph.exported.run(self._network, tensors_of(inputs))

    def graphs(self) -> list[GraphModule]:
        """Return the graphs: those of training and evaluation first."""
        return [graph.exported.graph for graph in self._graphs]

    def _export(self, training: bool) -> _Graph:
        device = next(self._network.parameters()).device
        with torch.inference_mode(False), torch.enable_grad():
            inputs = self.described.examples(device, batch=2)
            exported = export_graph(self._network, inputs, training, self.described)
        points = find_rounding_points(exported.graph, self._keep_float)
        exported.return_attributes()
        self._settings.note_written(exported.attribute_names())
        text = str(exported.graph.graph) + _constants(exported.graph, self._network)
        return _Graph(training, [self._settings.read(training)], exported, points, text)

    def _insert(self, graph: _Graph) -> None:
        module = graph.exported.graph
        _insert(module, graph.points, self._roundings, self._weight_bits)
        call_hooks(module, self._network)

    def _add(self, training: bool, settings: Settings) -> _Graph:
        """Return the graph of changed modes and numbers; the graph of before if the network's operations differ."""
        latest = next(graph for graph in reversed(self._graphs) if graph.training == training)
        changed = changed_keys(latest.settings[-1], settings)
        names = ", ".join(f"`{path}.{name}`" if path else f"`{name}`" for path, name in sorted(changed)[:3])
        try:
            graph = self._export(training)
        except ValueError as error:
            graph, problem = None, str(error)
        else:
            problem = "its operations differ"
        if graph is None or _operations(graph.points)[0] != self.rounded:
            warnings.warn(
                f"{type(self._network).__name__} has changed ({names}), but fake quantization continues without the "
                f"change: {problem}.",
                stacklevel=2,
            )
            self._unsupported += 1
            if self._unsupported > MOST_GRAPHS:  # a number that changes in each step
                self._ignore(key for key in changed if key[1] not in _NEVER_IGNORED)
            latest.settings.append(self._settings.read(training))
            return latest
        same = next((one for one in self._graphs if one.training == training and one.text == graph.text), None)
        if same is not None and all(name != "hooks" for _, name in changed):
            same.settings.append(settings)
            if same is latest:
                self._ignore_if_irrelevant(training, changed, settings)
            return same
        self._settings.consider_all()
        self._insert(graph)
        graph.settings.append(self._settings.read(training))
        self._graphs.append(graph)
        if len(self._graphs) == MOST_GRAPHS + 1:
            warnings.warn(
                f"{type(self._network).__name__} has changed often in fake quantization (the last time {names}), and "
                "a graph is exported for each change and kept in memory. Pass numbers that change often as tensors.",
                stacklevel=2,
            )
        return graph

    def _ignore_if_irrelevant(self, training: bool, changed: set[Key], settings: Settings) -> None:
        """Ignore settings that have changed if the graph of the other mode, of before the change, is right now too."""
        other = next(graph for graph in reversed(self._graphs) if graph.training != training)
        before = other.settings[-1]
        keys = {key for key in changed if key[1] not in _NEVER_IGNORED and before.get(key) != settings.get(key)}
        if keys and self._export(not training).text == other.text:
            self._ignore(keys)

    def _ignore(self, keys: Iterable[Key]) -> None:
        keys = set(keys)
        self._settings.ignore(keys)
        for graph in self._graphs:
            graph.settings = [{k: v for k, v in one.items() if k not in keys} for one in graph.settings]

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


def _constants(graph_module: GraphModule, network: nn.Module) -> str:
    """Return the values of a graph's tensors that are neither parameters nor buffers of the network."""
    own = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    names = dict.fromkeys(str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr")
    values = ((name, _tensor(graph_module, name)) for name in names)
    return "".join(
        f"{name} {value.dtype} {hashlib.sha256(tensor_bytes(value)).hexdigest()}"
        for name, value in values
        if isinstance(value, torch.Tensor) and id(value) not in own
    )


def _tensor(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)
