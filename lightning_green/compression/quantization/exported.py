"""Export of a network to a graph of functional operations, with errors that contain the line of the user's code."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from lightning_green.compression.inputs import Inputs, batch_dimensions, call, input_names
from lightning_green.compression.network import own_forward, restored_modes
from lightning_green.compression.outputs import OutputError, OutputStructure

aten = torch.ops.aten
_OUT_OF_PLACE = {
    aten.relu_.default: aten.relu.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.hardsigmoid_.default: aten.hardsigmoid.default,
    aten.silu_.default: aten.silu.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.tanh_.default: aten.tanh.default,
    aten.elu_.default: aten.elu.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.dropout_.default: aten.dropout.default,
    aten.add_.Tensor: aten.add.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
}
_LIBRARIES = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[2]))


@dataclass(frozen=True)
class ExportedNetwork:
    """The graph of a network for one kind of call.

    Args:
        graph: Takes the tensors in the network's inputs, and returns a tuple of the tensors in its output.
        output: The structure of the output.

    """

    graph: GraphModule
    output: OutputStructure


def export_graph(network: nn.Module, inputs: Inputs, training: bool) -> ExportedNetwork:
    """Return the graph of a network in training or evaluation mode; it shares its parameters and buffers.

    Args:
        network: The network, whose mode does not change.
        inputs: Inputs with at least two samples along dimension 0. The graph accepts other numbers of samples.
        training: Whether layers such as dropout and batch norm are in training mode.

    Raises:
        ValueError: If the network cannot be exported; the message contains the line and a remedy.

    """
    tensors = tuple(leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))
    shapes = batch_dimensions(tensors, torch.export.Dim("batch", min=2))
    with restored_modes(network), _flat_forward(network, inputs) as outputs:
        if not (training and network.training):  # keeps layers that the user put into evaluation mode
            network.train(training)
        try:
            with torch.autocast(tensors[0].device.type, enabled=False):
                exported = torch.export.export(network, tensors, dynamic_shapes=shapes)
        except OutputError as error:
            raise ValueError(
                f"`model` should be the dotted path of a network that can be quantized, but {type(network).__name__} "
                f"cannot: {error}"
            ) from error
        except Exception as error:
            raise ValueError(_explain(network, error)) from error
    graph = exported.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    graph.graph.set_codegen(CodeGen())
    _drop_assertions(graph)
    _make_functional(graph)
    if not training:
        _drop_counters(graph)
    return ExportedNetwork(graph, outputs[-1])


@contextmanager
def _flat_forward(network: nn.Module, inputs: Inputs) -> Iterator[list[OutputStructure]]:
    """Replace a network's forward by one from tensors to tensors, and yield the list of the output's structures.

    ``torch.export`` accepts only the classes of outputs that are registered with it.
    """
    leaves, structure = pytree.tree_flatten(inputs)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    before, plain = network.__dict__.get("forward"), own_forward(network)
    structures: list[OutputStructure] = []

    def forward(*tensors: Tensor) -> list[Any]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        output = call(plain, pytree.tree_unflatten(filled, structure))
        structures.append(OutputStructure(output))
        return structures[-1].tensors(output)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in input_names(network, inputs)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    network.forward = forward
    try:
        yield structures
    finally:
        if before is None:
            del network.__dict__["forward"]
        else:
            network.forward = before


def _explain(network: nn.Module, error: Exception) -> str:
    """Return a message with the line of the user's code that could not be exported."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.line and not f.filename.startswith(_LIBRARIES)]
    source = getattr(sys.modules.get(type(network).__module__), "__file__", None)
    own = [f for f in frames if f.filename == source] or frames
    where = ""
    if own:
        last = own[-1]
        where = f" at {Path(last.filename).name}:{last.lineno} (`{last.line}`)"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{type(network).__name__} cannot be exported for quantization{where}: {first} "
        "Rewrite that line without Python control flow over values of tensors (torch.where, torch.cond), move it "
        "out of the network, or select a smaller network with `model`."
    )


def _drop_assertions(graph_module: GraphModule) -> None:
    """Remove assertions of data types and devices, which differ under autocast and after a move."""
    for node in list(graph_module.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph_module.graph.erase_node(node)


def _make_functional(graph_module: GraphModule) -> None:
    """Replace in-place operations, so that a value can be rounded between two operations."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        replacement = _OUT_OF_PLACE.get(node.target) if node.op == "call_function" else None
        if replacement is None or not isinstance(node.args[0], Node) or node.args[0].op == "get_attr":
            continue  # buffers, such as the counters of batch norm, have to change
        written = node.args[0]
        node.target = replacement
        later = False
        for other in list(graph.nodes):
            if later:
                other.replace_input_with(written, node)
            later = later or other is node
    graph.lint()
    graph_module.recompile()


def _drop_counters(graph_module: GraphModule) -> None:
    """Remove the counters of batch norm, so that evaluation changes no buffer."""
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target is aten.add_.Tensor and not node.users:
            graph_module.graph.erase_node(node)
    graph_module.recompile()


def outputs_of(graph_module: GraphModule) -> list[Node]:
    """Return the output nodes of an exported graph."""
    return list(graph_module.graph.output_node().args[0])  # type: ignore[arg-type]


def target_inputs(graph_module: GraphModule) -> set[Node]:
    """Return the inputs that only scalar outputs depend on: the targets of a loss inside the network."""
    needed = ancestors([node for node in outputs_of(graph_module) if shape_of(node) != torch.Size([])])
    inputs = {node for node in graph_module.graph.nodes if node.op == "placeholder" and node.users}
    return inputs - needed if needed else set()


def inference_outputs(graph_module: GraphModule) -> list[int]:
    """Return the positions of the outputs that do not depend on the targets of a loss."""
    targets = target_inputs(graph_module)
    return [i for i, node in enumerate(outputs_of(graph_module)) if not targets & ancestors([node])]


def ancestors(nodes: Iterable[Node]) -> set[Node]:
    """Return nodes with all nodes that they depend on."""
    found: set[Node] = set()
    queue = list(nodes)
    while queue:
        node = queue.pop()
        if node not in found:
            found.add(node)
            queue.extend(node.all_input_nodes)
    return found


def owner_path(node: Node) -> str:
    """Return the dotted path of the module that an operation belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else ""


def is_inside(node: Node, path: str) -> bool:
    """Return whether an operation belongs to a module or to one of its descendants."""
    stack = node.meta.get("nn_module_stack") or {}
    return any(inner == path or inner.startswith(f"{path}.") for inner, _ in stack.values())


def shape_of(node: Node) -> torch.Size | None:
    """Return the shape of an operation's result, or None if it is not a tensor."""
    value = node.meta.get("val")
    return value.shape if isinstance(value, Tensor) else None
