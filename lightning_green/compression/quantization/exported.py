"""Export of a network to a graph of functional operations, with errors that contain the line of the user's code."""

from __future__ import annotations

import linecache
import sys
import traceback
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from lightning_green.compression.network import batch_dimensions, restored_modes

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
_LIBRARIES = tuple(str(Path(module.__file__ or "").parent) for module in (torch,))


def export_graph(network: nn.Module, inputs: tuple[Tensor, ...], training: bool) -> GraphModule:
    """Return the graph of a network in training or evaluation mode; it shares its parameters and buffers.

    Args:
        network: The network, whose mode does not change.
        inputs: Inputs with at least two samples along dimension 0. The graph accepts other numbers of samples.
        training: Whether layers such as dropout and batch norm are in training mode.

    Raises:
        ValueError: If the network cannot be exported; the message contains the line and a remedy.

    """
    shapes = batch_dimensions(inputs, torch.export.Dim("batch", min=2))
    with restored_modes(network):
        if not (training and network.training):  # keeps layers that the user put into evaluation mode
            network.train(training)
        try:
            with torch.autocast(inputs[0].device.type, enabled=False):
                exported = torch.export.export(network, inputs, dynamic_shapes=shapes)
        except Exception as error:
            raise ValueError(_explain(network, error)) from error
    graph = exported.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    _make_functional(graph)
    if not training:
        _drop_counters(graph)
    return graph


def _explain(network: nn.Module, error: Exception) -> str:
    """Return a message with the line of the user's code that could not be exported."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_LIBRARIES)]
    source = getattr(sys.modules.get(type(network).__module__), "__file__", None)
    own = [f for f in frames if f.filename == source] or frames
    inside = [f for f in own if f.name not in ("export_graph",) and f.filename != __file__]
    where = ""
    if inside:
        last = inside[-1]
        line = last.line or linecache.getline(last.filename, last.lineno or 0).strip()
        where = f" at {Path(last.filename).name}:{last.lineno} (`{line}`)"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{type(network).__name__} cannot be exported for quantization{where}: {first} "
        "Rewrite that line without Python control flow over values of tensors (torch.where, torch.cond), move it "
        "out of the network, or select a smaller network with `model`."
    )


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
